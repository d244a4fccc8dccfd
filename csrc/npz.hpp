/// Reading `.npz` files (a zip of arrays in NumPy's format, NEP 1): of those asked for, nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace nepa3d {

/// What is wrong with a file; whoever opened it knows its name.
class FileFault : public std::runtime_error {
    using std::runtime_error::runtime_error;
};

/// Where an `.npz` lies: it is a whole file, or a part of a shard (python/nepa3d/shapes/packed.py).
struct NpzPlace {
    struct Part {
        std::uint64_t offset, size;
    };

    std::string name;  ///< path of the shape, which tells it from others and stands in messages
    std::string file;
    std::optional<Part> part;  ///< none: the whole file

    NpzPlace(std::string path) : name(path), file(std::move(path)) {}  // NOLINT: a path is a place
    NpzPlace(std::string path, std::string shard, Part bytes)
        : name(std::move(path)), file(std::move(shard)), part(bytes) {}
};

/// What an array's header says.
struct ArrayHeader {
    char kind;  ///< b, i, u or f, as numpy.dtype.kind
    int item_size;  ///< bytes of a number
    bool swapped;  ///< of the other byte order than this machine's
    bool fortran;  ///< the first index runs fastest
    int rank;  ///< 0 to 3
    std::array<std::size_t, 3> shape;

    std::size_t size() const;  ///< numbers in the array
};

/// Parses an array's header and sets `used` to its length. Throws FileFault on anything that is not a header of plain
/// numbers, also on objects (pickles), and on arrays of over 2^26 bytes.
ArrayHeader parse_array_header(std::span<const std::byte> bytes, std::size_t& used);

/// Memory for bytes that are about to be written.
struct Bytes {
    std::unique_ptr<std::byte[]> data;
    std::size_t size = 0;

    explicit Bytes(std::size_t count) : data(std::make_unique_for_overwrite<std::byte[]>(count)), size(count) {}
    std::span<std::byte> span() const { return {data.get(), size}; }
};

/// An array of a file.
class Array {
public:
    /// `data` holds what the header says, and lies in `memory`.
    Array(ArrayHeader header, std::span<const std::byte> data, Bytes memory);

    const ArrayHeader& header() const { return header_; }
    /// Rows of `columns` numbers each as floats, into `out`, one after the other. The rows must be there.
    void gather(std::span<const std::uint32_t> rows, std::size_t columns, float* out) const;
    /// All its numbers as floats, row by row of `columns`.
    std::vector<float> floats(std::size_t columns) const;

private:
    bool is_plain() const;
    float at(std::size_t row, std::size_t column, std::size_t columns) const;

    ArrayHeader header_;
    std::span<const std::byte> data_;
    Bytes memory_;
};

/// An open `.npz`. Reads with pread rather than through a mapping: threads that map and unmap files wait for each
/// other, and a file that shrinks or a disk that fails is an error instead of a signal.
class Npz {
public:
    /// Reads the table of members. Throws FileFault if there is no such file, or it is no zip, or names a member twice;
    /// of a shard also where it ends before its part does.
    explicit Npz(const NpzPlace& place);
    ~Npz();
    Npz(const Npz&) = delete;
    Npz& operator=(const Npz&) = delete;

    bool contains(std::string_view name) const { return find(name) != nullptr; }
    /// The array `name` (without ".npy"). Inflates it if it is deflated, and then checks its checksum. Throws FileFault
    /// if it is missing or damaged.
    Array array(std::string_view name) const;

private:
    struct Member {
        std::string_view name;
        std::uint32_t checksum, compressed, size, header;
        std::uint16_t method;
    };

    void take_size(const NpzPlace& place);
    void read_directory();
    Bytes read(std::size_t offset, std::size_t size) const;
    Bytes read_member(const Member& member) const;
    const Member* find(std::string_view name) const;

    int file_;
    std::uint64_t begin_ = 0;  ///< in the file
    std::size_t size_ = 0;
    Bytes tail_{0};  ///< the directory, to the file's end
    std::vector<Member> members_;
};

}  // namespace nepa3d
