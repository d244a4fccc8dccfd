#include <cub/device/device_radix_sort.cuh>

#include "row_sort.hpp"
#include "runtime.cuh"

namespace nepa3d::cuda {

std::size_t row_sort_bytes(std::int32_t count, int bits) {
    std::size_t bytes = 0;
    const std::uint64_t* const keys = nullptr;
    const std::int32_t* const rows = nullptr;
    check(cub::DeviceRadixSort::SortPairs(nullptr, bytes, keys, const_cast<std::uint64_t*>(keys), rows,
                                          const_cast<std::int32_t*>(rows), count, 0, bits),
          "cub::DeviceRadixSort::SortPairs");
    return bytes;
}

void sort_rows(const RowSort& sort, int first_bit, void* stream) {
    if (sort.count == 0) return;
    std::size_t bytes = sort.memory_bytes;
    check(cub::DeviceRadixSort::SortPairs(sort.memory, bytes, sort.keys, sort.sorted, sort.rows, sort.order, sort.count,
                                          first_bit, sort.bits, static_cast<cudaStream_t>(stream)),
          "cub::DeviceRadixSort::SortPairs");
}

}  // namespace nepa3d::cuda
