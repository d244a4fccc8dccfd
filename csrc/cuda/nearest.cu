#include "launch.hpp"
#include "nearest.cuh"
#include "runtime.cuh"

namespace nepa3d::cuda {

namespace {

__global__ void __launch_bounds__(nearest_threads) nearest_kernel(const NearestBatch batch) {
    __shared__ TilePoint tile[nearest_threads];
    nearest_block(Block{}, batch, static_cast<std::int32_t>(blockIdx.x), tile);
}

}  // namespace

void nearest(const NearestBatch& batch, Stream stream) {
    if (batch.query_rows.rows == 0) return;
    const auto blocks = static_cast<unsigned>(batch.query_rows.blocks(nearest_block_queries));
    nearest_kernel<<<blocks, nearest_threads, 0, static_cast<cudaStream_t>(stream)>>>(batch);
    check(cudaGetLastError(), "nearest");
}

}  // namespace nepa3d::cuda
