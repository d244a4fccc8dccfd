/// Errors of the CUDA runtime, and launches of one thread for each row.
#pragma once

#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace nepa3d::cuda {

/// Throws if `status` is an error; `call` is what returned it.
inline void check(cudaError_t status, const char* call) {
    if (status != cudaSuccess)
        throw std::runtime_error(std::string(call) + ": " + cudaGetErrorString(status) + " (CUDA error " +
                                 std::to_string(static_cast<int>(status)) + ")");
}

constexpr int row_threads = 128;

/// Calls function(batch, row) for each row below `rows`.
template <auto function, class Batch>
__global__ void __launch_bounds__(row_threads) for_each_row(const Batch batch, std::int32_t rows) {
    const std::int32_t row = static_cast<std::int32_t>(blockIdx.x * blockDim.x + threadIdx.x);
    if (row < rows) function(batch, row);
}

template <auto function, class Batch>
void launch_rows(const Batch& batch, std::int32_t rows, void* stream, const char* name) {
    if (rows == 0) return;
    for_each_row<function>
        <<<(rows + row_threads - 1) / row_threads, row_threads, 0, static_cast<cudaStream_t>(stream)>>>(batch, rows);
    check(cudaGetLastError(), name);
}

}  // namespace nepa3d::cuda
