#include "launch.hpp"
#include "nearest_tree.cuh"
#include "runtime.cuh"

namespace nepa3d::cuda {

namespace {

constexpr int group_warps = 4;  // of a block

__global__ void __launch_bounds__(bounds_threads) bounds_kernel(const NearestInTree batch) {
    __shared__ Box partial[bounds_threads];
    const auto shape = static_cast<std::int32_t>(blockIdx.x);
    bounds_block(Block{}, batch.points, batch.point_rows, shape, batch.point_bounds, partial);
    bounds_block(Block{}, batch.queries, batch.query_rows, shape, batch.query_bounds, partial);
}

__global__ void __launch_bounds__(group_warps * 32)
    nearest_group_kernel(const NearestInTree batch, std::int32_t groups) {
    __shared__ Waiting waiting[group_warps][most_waiting];
    const int warp = static_cast<int>(threadIdx.x) / 32;
    const std::int32_t group = static_cast<std::int32_t>(blockIdx.x) * group_warps + warp;
    if (group < groups) nearest_group(Warp{}, batch, group, waiting[warp]);
}

}  // namespace

void nearest_in_tree(NearestInTree batch, void* memory, std::size_t memory_bytes, Stream stream) {
    if (batch.query_rows.rows == 0) return;
    const auto on = static_cast<cudaStream_t>(stream);
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    bounds_kernel<<<static_cast<unsigned>(batch.point_rows.shapes), bounds_threads, 0, on>>>(batch);
    check(cudaGetLastError(), "nearest_in_tree: bounds");
    launch_rows<code_point>(batch, batch.point_rows.rows, stream, "nearest_in_tree: codes of points");
    sort_rows(batch.point_sort, coarse_bits, stream);
    launch_rows<place_point>(batch, batch.point_rows.rows, stream, "nearest_in_tree: points");
    for (int level = 0; level < batch.levels; ++level) {
        const std::int32_t blocks = batch.point_rows.blocks(points_of_level(level));
        launch_rows<box_block>(BoxLevel{batch, level}, blocks, stream, "nearest_in_tree: boxes");
    }
    launch_rows<code_query>(batch, batch.query_rows.rows, stream, "nearest_in_tree: codes of queries");
    sort_rows(batch.query_sort, coarse_bits, stream);
    const std::int32_t groups = batch.query_rows.blocks(group_queries);
    const auto blocks = static_cast<unsigned>((groups + group_warps - 1) / group_warps);
    nearest_group_kernel<<<blocks, group_warps * 32, 0, on>>>(batch, groups);
    check(cudaGetLastError(), "nearest_in_tree");
}

}  // namespace nepa3d::cuda
