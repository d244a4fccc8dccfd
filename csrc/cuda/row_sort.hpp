/// Rows of a batch sorted by keys, of equal keys in the order they have.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#include "scratch.hpp"

namespace nepa3d::cuda {

struct RowSort {
    std::uint64_t *keys, *sorted;  ///< (count,): in, out
    std::int32_t *rows, *order;    ///< (count,): what is sorted by them, in and out
    std::int32_t count;
    int bits;  ///< of the keys that may not be 0
    void* memory;
    std::size_t memory_bytes;

    void lay_out(Scratch& scratch, std::int32_t count, int bits);
};

/// The bits of shape << 32 | code.
inline int bits_of_keys(std::int32_t shapes) { return 32 + std::bit_width(static_cast<std::uint32_t>(shapes - 1)); }

/// Bytes that sorting needs beside the arrays.
std::size_t row_sort_bytes(std::int32_t count, int bits);

/// Sorts by the bits of the keys from `first_bit` on. `keys` and `rows` are kept.
void sort_rows(const RowSort& sort, int first_bit, void* stream);

inline void RowSort::lay_out(Scratch& scratch, std::int32_t all_rows, int key_bits) {
    const auto size = static_cast<std::size_t>(all_rows);
    count = all_rows, bits = key_bits;
    keys = scratch.take<std::uint64_t>(size);
    sorted = scratch.take<std::uint64_t>(size);
    rows = scratch.take<std::int32_t>(size);
    order = scratch.take<std::int32_t>(size);
    memory_bytes = row_sort_bytes(count, bits);
    memory = scratch.take<char>(memory_bytes);
}

}  // namespace nepa3d::cuda
