/// The launchers of `nepa3d._cuda_host`: the same thread functions and block steps, one after the other on the CPU.
#include <algorithm>
#include <array>
#include <memory>

#include "launch.hpp"
#include "scratch.hpp"

namespace nepa3d::cuda {

namespace {

template <class Function, class Batch>
void for_each_row(const Function& function, const Batch& batch, std::int32_t rows) {
    for (std::int32_t row = 0; row < rows; ++row) function(batch, row);
}

}  // namespace

OnDevice::OnDevice(int) {}
OnDevice::~OnDevice() = default;

std::vector<DeviceInfo> devices() { return {}; }

void nearest(const NearestBatch& batch, Stream) {
    if (batch.query_rows.rows == 0) return;
    std::array<TilePoint, nearest_threads> tile;
    const LoopTeam team{nearest_threads};
    for (std::int32_t block = 0; block < batch.query_rows.blocks(nearest_block_queries); ++block)
        nearest_block(team, batch, block, tile.data());
}

std::size_t bvh_scratch_bytes(std::int32_t faces, std::int32_t shapes) {
    BvhBuild build{};
    Scratch scratch(nullptr);
    build.lay_out(scratch, faces, shapes);
    return scratch.bytes();
}

void build_bvh(BvhBuild build, void* memory, std::size_t memory_bytes, Stream) {
    const std::int32_t faces = build.face_rows.rows, shapes = build.face_rows.shapes;
    Scratch scratch(memory);
    build.lay_out(scratch, faces, shapes);
    require_bytes(memory_bytes, scratch.bytes());
    std::array<Box, bounds_threads> partial;
    const LoopTeam team{bounds_threads};
    for (std::int32_t shape = 0; shape < shapes; ++shape) bounds_block(team, build, shape, partial.data());
    for_each_row(code_face, build, faces);
    std::copy_n(build.places, faces, build.order);
    std::stable_sort(build.order, build.order + faces,
                     [&](std::int32_t i, std::int32_t j) { return build.codes[i] < build.codes[j]; });
    std::transform(build.order, build.order + faces, build.sorted, [&](std::int32_t i) { return build.codes[i]; });
    for_each_row(climb_from, build, faces);
}

void first_hits(const FirstHits& batch, Stream) { for_each_row(first_hit, batch, batch.ray_rows.rows); }

void closest_points(const ClosestPoints& batch, Stream) { for_each_row(closest_point, batch, batch.query_rows.rows); }

void voxelize(const Voxelize& batch, Stream) { for_each_row(mark_cell, batch, batch.point_rows.rows); }

void dilate(const Dilate& round, std::int32_t cells, Stream) { for_each_row(dilate_cell, round, cells); }

void trilinear_sample(const Trilinear& batch, Stream) { for_each_row(interpolate, batch, batch.point_rows.rows); }

void walk_voxels(const VoxelWalks& batch, Stream) { for_each_row(walk_ray, batch, batch.ray_rows.rows); }

void distance_transform(const Transforms& batch, void* scratch, std::size_t scratch_bytes, Stream) {
    transform_by(batch, scratch, scratch_bytes,
                 [&]<class Pass>(const Pass& pass) { for_each_row(run_pass<Pass>, pass, batch.cells()); });
}

}  // namespace nepa3d::cuda
