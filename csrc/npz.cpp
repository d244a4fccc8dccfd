#include "npz.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <type_traits>

namespace nepa3d {

namespace {

constexpr std::size_t max_array_bytes = std::size_t{1} << 26;  // of a pool: over five million points

/// A little-endian number of a zip's header; the bytes must be there.
template <class T>
T number_at(std::span<const std::byte> bytes, std::size_t offset) {
    T value = 0;
    for (std::size_t i = 0; i < sizeof(T); ++i)
        value = static_cast<T>(value | static_cast<T>(std::to_integer<T>(bytes[offset + i]) << (8 * i)));
    return value;
}

std::string_view text_at(std::span<const std::byte> bytes, std::size_t offset, std::size_t length) {
    return {reinterpret_cast<const char*>(bytes.data()) + offset, length};
}

/// The value of a key of the header, from its first character on.
std::string_view value_of(std::string_view header, std::string_view key) {
    for (const char quote : {'\'', '"'}) {
        const std::string quoted = quote + std::string(key) + quote;
        std::size_t at = header.find(quoted);
        if (at == std::string_view::npos) continue;
        at = header.find_first_not_of(' ', at + quoted.size());
        if (at == std::string_view::npos || header[at] != ':') break;
        at = header.find_first_not_of(' ', at + 1);
        if (at == std::string_view::npos) break;
        return header.substr(at);
    }
    throw FileFault("an array's header lacks '" + std::string(key) + "'");
}

void parse_type(std::string_view text, ArrayHeader& header) {
    if (text.size() < 4 || (text[0] != '\'' && text[0] != '"'))
        throw FileFault("records are not read, only plain arrays");
    text = text.substr(1, text.find(text[0], 1) - 1);
    if (text.find('O') != std::string_view::npos) throw FileFault("pickled, only plain arrays are read");
    const char order = text[0];
    int size = 0;
    const auto [end, error] =
        std::from_chars(text.data() + std::min<std::size_t>(2, text.size()), text.data() + text.size(), size);
    const bool known = text.size() >= 3 && std::string_view("<>|=").find(order) != std::string_view::npos &&
                       std::string_view("biuf").find(text[1]) != std::string_view::npos && error == std::errc() &&
                       end == text.data() + text.size() && size <= 8 &&
                       std::has_single_bit(static_cast<unsigned>(size)) && !(text[1] == 'f' && size == 1) &&
                       !(text[1] == 'b' && size != 1);
    if (!known) throw FileFault("of dtype " + std::string(text.substr(0, 20)) + ", which is no plain number");
    header.kind = text[1];
    header.item_size = size;
    header.swapped = size > 1 && order == (std::endian::native == std::endian::little ? '>' : '<');
}

void parse_shape(std::string_view text, ArrayHeader& header) {
    if (text.empty() || text[0] != '(') throw FileFault("an array's shape is no tuple");
    const char* at = text.data() + 1;
    const char* const end = text.data() + text.size();
    std::size_t bytes = static_cast<std::size_t>(header.item_size);
    while (true) {
        while (at < end && *at == ' ') ++at;
        if (at < end && *at == ')') break;
        if (header.rank == 3) throw FileFault("an array has more than 3 axes");
        std::size_t& extent = header.shape[static_cast<std::size_t>(header.rank++)];
        const auto [stop, error] = std::from_chars(at, end, extent);
        if (error != std::errc()) throw FileFault("an array's shape is not of whole numbers");
        if (extent > max_array_bytes || (bytes *= extent) > max_array_bytes)
            throw FileFault("it says it holds over " + std::to_string(max_array_bytes) + " bytes");
        at = stop;
        while (at < end && *at == ' ') ++at;
        if (at < end && *at == ',') ++at;
        else if (at == end || *at != ')') throw FileFault("an array's shape does not end");
    }
}

struct HalfBits {
    std::uint16_t bits;

    /// IEEE 754 binary16; exact.
    explicit operator float() const {
        const std::uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 31u, fraction = bits & 0x3ffu;
        if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | fraction << 13);
        if (exponent > 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | fraction << 13);
        const float value = static_cast<float>(fraction) * 0x1p-24f;
        return sign ? -value : value;
    }
};

/// Calls `use` with a null pointer of the type of the array's numbers; half floats count as their 16 bits.
template <class Use>
auto with_type(const ArrayHeader& header, const Use& use) {
    switch (header.kind == 'f' ? -header.item_size : header.kind == 'i' ? 16 + header.item_size : header.item_size) {
        case -8: return use(static_cast<double*>(nullptr));
        case -4: return use(static_cast<float*>(nullptr));
        case -2: return use(static_cast<HalfBits*>(nullptr));
        case 8: return use(static_cast<std::uint64_t*>(nullptr));
        case 4: return use(static_cast<std::uint32_t*>(nullptr));
        case 2: return use(static_cast<std::uint16_t*>(nullptr));
        case 1: return use(static_cast<std::uint8_t*>(nullptr));
        case 24: return use(static_cast<std::int64_t*>(nullptr));
        case 20: return use(static_cast<std::int32_t*>(nullptr));
        case 18: return use(static_cast<std::int16_t*>(nullptr));
        case 17: return use(static_cast<std::int8_t*>(nullptr));
        default: throw std::logic_error("an array of a type that its header's check refuses");
    }
}

template <class T>
float number_as_float(const std::byte* at, bool swapped) {
    std::array<std::byte, sizeof(T)> raw;
    std::memcpy(raw.data(), at, sizeof(T));
    if (swapped) std::reverse(raw.begin(), raw.end());
    return static_cast<float>(std::bit_cast<T>(raw));
}

Bytes inflated(std::span<const std::byte> from, std::size_t size, std::uint32_t checksum) {
    if (size > max_array_bytes) throw FileFault("it says it holds over " + std::to_string(max_array_bytes) + " bytes");
    Bytes to(size);
    z_stream stream{};
    if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) throw std::bad_alloc();
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(from.data()));
    stream.avail_in = static_cast<uInt>(from.size());
    stream.next_out = reinterpret_cast<Bytef*>(to.data.get());
    stream.avail_out = static_cast<uInt>(size);
    const int status = inflate(&stream, Z_FINISH);
    const bool whole = status == Z_STREAM_END && stream.total_out == size;
    inflateEnd(&stream);
    if (!whole) throw FileFault("its compressed data is damaged");
    if (crc32(0, reinterpret_cast<const Bytef*>(to.data.get()), static_cast<uInt>(size)) != checksum)
        throw FileFault("its checksum is wrong");
    return to;
}

}  // namespace

std::size_t ArrayHeader::size() const {
    std::size_t count = 1;
    for (int axis = 0; axis < rank; ++axis) count *= shape[static_cast<std::size_t>(axis)];
    return count;
}

ArrayHeader parse_array_header(std::span<const std::byte> bytes, std::size_t& used) {
    if (bytes.size() < 12 || text_at(bytes, 0, 6) != "\x93NUMPY") throw FileFault("it is no array in NumPy's format");
    const int version = std::to_integer<int>(bytes[6]);
    if ((version != 1 && version != 2) || bytes[7] != std::byte{0})
        throw FileFault("it is of an unknown version of NumPy's format");
    const bool is_long = version == 2;
    const std::size_t start = is_long ? 12 : 10;
    const std::size_t length = is_long ? number_at<std::uint32_t>(bytes, 8) : number_at<std::uint16_t>(bytes, 8);
    if (length > bytes.size() - start || length > 10000) throw FileFault("its header is longer than it can be");
    const std::string_view text = text_at(bytes, start, length);
    ArrayHeader header{};
    parse_type(value_of(text, "descr"), header);
    header.fortran = value_of(text, "fortran_order").starts_with("True");
    parse_shape(value_of(text, "shape"), header);
    used = start + length;
    return header;
}

Array::Array(ArrayHeader header, std::span<const std::byte> data, Bytes memory)
    : header_(header), data_(data), memory_(std::move(memory)) {}

/// Whether the data are this machine's floats, row by row.
bool Array::is_plain() const {
    return header_.kind == 'f' && header_.item_size == 4 && !header_.swapped && (!header_.fortran || header_.rank < 2);
}

float Array::at(std::size_t row, std::size_t column, std::size_t columns) const {
    const std::size_t rows = header_.size() / columns;
    const std::size_t index = header_.fortran ? column * rows + row : row * columns + column;
    const std::byte* const address = data_.data() + index * static_cast<std::size_t>(header_.item_size);
    return with_type(header_, [&](auto* type) {
        return number_as_float<std::remove_pointer_t<decltype(type)>>(address, header_.swapped);
    });
}

void Array::gather(std::span<const std::uint32_t> rows, std::size_t columns, float* out) const {
    if (is_plain()) {
        const std::byte* const from = data_.data();
        const std::size_t width = columns * sizeof(float);
        constexpr std::size_t distance = 16;  // the rows lie anywhere: their cache misses overlap
        for (std::size_t i = 0; i < rows.size(); ++i, out += columns) {
            if (i + distance < rows.size()) __builtin_prefetch(from + rows[i + distance] * width);
            if (columns == 3) std::memcpy(out, from + rows[i] * 3 * sizeof(float), 3 * sizeof(float));
            else std::memcpy(out, from + rows[i] * width, width);
        }
        return;
    }
    for (const std::uint32_t row : rows) {
        for (std::size_t column = 0; column < columns; ++column) *out++ = at(row, column, columns);
    }
}

std::vector<float> Array::floats(std::size_t columns) const {
    std::vector<float> values(header_.size());
    if (is_plain()) {
        std::memcpy(values.data(), data_.data(), values.size() * sizeof(float));
        return values;
    }
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = at(i / columns, i % columns, columns);
    return values;
}

Npz::Npz(const NpzPlace& place) : file_(open(place.file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    const std::string shard = place.part ? "its shard " + place.file + ": " : "";
    if (file_ < 0)
        throw FileFault(shard + (errno == ENOENT ? "there is no such file" : std::generic_category().message(errno)));
    try {
        try {
            take_size(place);
        } catch (const FileFault& fault) {
            throw FileFault(shard + fault.what());
        }
        if (size_ == 0) throw FileFault("the file has 0 bytes");
        read_directory();
    } catch (...) {
        close(file_);
        throw;
    }
}

Npz::~Npz() { close(file_); }

void Npz::take_size(const NpzPlace& place) {
    struct stat status{};
    if (fstat(file_, &status) != 0) throw FileFault(std::generic_category().message(errno));
    if (!S_ISREG(status.st_mode)) throw FileFault("not a file");
    const auto whole = static_cast<std::uint64_t>(status.st_size);
    const NpzPlace::Part part = place.part.value_or(NpzPlace::Part{0, whole});
    if (part.offset > whole || part.size > whole - part.offset)
        throw FileFault("it has " + std::to_string(whole) + " bytes and ends before the shape does");
    begin_ = part.offset;
    size_ = static_cast<std::size_t>(part.size);
}

Bytes Npz::read(std::size_t offset, std::size_t size) const {
    if (offset > size_ || size > size_ - offset) throw FileFault("it is longer than the file");
    Bytes bytes(size);
    for (std::size_t done = 0; done < size;) {
        const ssize_t count =
            pread(file_, bytes.data.get() + done, size - done, static_cast<off_t>(begin_ + offset + done));
        if (count < 0 && errno == EINTR) continue;
        if (count < 0) throw FileFault(std::generic_category().message(errno));
        if (count == 0) throw FileFault("the file has become shorter");
        done += static_cast<std::size_t>(count);
    }
    return bytes;
}

/// The layout is that of PKWARE's APPNOTE 6.3: 4.3.7 local header, 4.3.12 directory, 4.3.16 its end.
void Npz::read_directory() {
    constexpr std::size_t end_size = 22, entry_size = 46, longest_end = end_size + 0xffff, usual = 4096;
    const FileFault truncated("not a readable .npz, truncated or of another kind");
    std::optional<std::size_t> found;  // the directory's end, in the tail
    for (const std::size_t tail : {std::min(usual, size_), std::min(longest_end, size_)}) {
        tail_ = read(size_ - tail, tail);
        for (std::size_t at = tail; !found && at-- > 0;) {
            if (at + end_size <= tail && number_at<std::uint32_t>(tail_.span(), at) == 0x06054b50) found = at;
        }
        if (found) break;
    }
    if (!found) throw truncated;
    const std::size_t end = size_ - tail_.size + *found;  // in the file
    const std::size_t count = number_at<std::uint16_t>(tail_.span(), *found + 10);
    const std::size_t size = number_at<std::uint32_t>(tail_.span(), *found + 12);
    const std::size_t start = number_at<std::uint32_t>(tail_.span(), *found + 16);
    if (start > end || size > end - start) throw truncated;
    tail_ = read(start, size);
    const auto bytes = tail_.span();
    std::size_t at = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (entry_size > size - at || number_at<std::uint32_t>(bytes, at) != 0x02014b50) throw truncated;
        const std::size_t name = number_at<std::uint16_t>(bytes, at + 28);
        const std::size_t rest =
            name + number_at<std::uint16_t>(bytes, at + 30) + number_at<std::uint16_t>(bytes, at + 32);
        if (rest > size - at - entry_size) throw truncated;
        const Member member{.name = text_at(bytes, at + entry_size, name),
                            .checksum = number_at<std::uint32_t>(bytes, at + 16),
                            .compressed = number_at<std::uint32_t>(bytes, at + 20),
                            .size = number_at<std::uint32_t>(bytes, at + 24),
                            .header = number_at<std::uint32_t>(bytes, at + 42),
                            .method = number_at<std::uint16_t>(bytes, at + 10)};
        if (std::any_of(members_.begin(), members_.end(), [&](const Member& m) { return m.name == member.name; }))
            throw FileFault(std::string(member.name) + " is there twice");
        members_.push_back(member);
        at += entry_size + rest;
    }
}

const Npz::Member* Npz::find(std::string_view name) const {
    for (const Member& member : members_) {
        if (member.name.size() == name.size() + 4 && member.name.starts_with(name) && member.name.ends_with(".npy"))
            return &member;
    }
    return nullptr;
}

Bytes Npz::read_member(const Member& member) const {
    constexpr std::size_t header_size = 30;
    const Bytes header = read(member.header, header_size + member.name.size());
    const auto bytes = header.span();
    if (number_at<std::uint32_t>(bytes, 0) != 0x04034b50) throw FileFault("it is not where the file says");
    if (number_at<std::uint16_t>(bytes, 6) & 1) throw FileFault("it is encrypted");
    const std::size_t name = number_at<std::uint16_t>(bytes, 26), extra = number_at<std::uint16_t>(bytes, 28);
    if (name != member.name.size() || text_at(bytes, header_size, name) != member.name)
        throw FileFault("it has two names");
    if (member.compressed > max_array_bytes + 0xffff) throw FileFault("it is longer than any array");
    Bytes contents = read(member.header + header_size + name + extra, member.compressed);
    if (member.method == 0) return contents;
    if (member.method != 8)
        throw FileFault("compressed by method " + std::to_string(member.method) + ", which is not read");
    return inflated(contents.span(), member.size, member.checksum);
}

Array Npz::array(std::string_view name) const {
    const Member* const member = find(name);
    if (member == nullptr) throw FileFault(std::string(name) + " is missing");
    try {
        Bytes contents = read_member(*member);
        std::size_t used = 0;
        const ArrayHeader header = parse_array_header(contents.span(), used);
        const std::size_t bytes = header.size() * static_cast<std::size_t>(header.item_size);
        if (contents.size - used != bytes)
            throw FileFault("it does not hold the " + std::to_string(bytes) + " bytes it says");
        const auto data = contents.span().subspan(used);
        return {header, data, std::move(contents)};
    } catch (const FileFault& fault) {
        throw FileFault(std::string(name) + ": " + fault.what());
    }
}

}  // namespace nepa3d
