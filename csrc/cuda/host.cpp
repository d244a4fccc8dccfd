/// The launchers of `nepa3d._cuda_host`: the same thread functions and block steps, one after the other on the CPU.
#include <algorithm>
#include <array>
#include <numeric>
#include <vector>

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

void nearest_in_tree(NearestInTree batch, void* memory, std::size_t memory_bytes, Stream stream) {
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    std::array<Box, bounds_threads> partial;
    for (std::int32_t shape = 0; shape < batch.point_rows.shapes; ++shape) {
        const LoopTeam team{bounds_threads};
        bounds_block(team, batch.points, batch.point_rows, shape, batch.point_bounds, partial.data());
        bounds_block(team, batch.queries, batch.query_rows, shape, batch.query_bounds, partial.data());
    }
    for_each_row(code_point, batch, batch.point_rows.rows);
    sort_rows(batch.point_sort, coarse_bits, stream);
    for_each_row(place_point, batch, batch.point_rows.rows);
    for (int level = 0; level < batch.levels; ++level)
        for_each_row(box_block, BoxLevel{batch, level}, batch.point_rows.blocks(points_of_level(level)));
    for_each_row(code_query, batch, batch.query_rows.rows);
    sort_rows(batch.query_sort, coarse_bits, stream);
    std::array<Waiting, most_waiting> waiting;
    for (std::int32_t group = 0; group < batch.query_rows.blocks(group_queries); ++group)
        nearest_group(LoopTeam{group_queries}, batch, group, waiting.data());
}

std::size_t row_sort_bytes(std::int32_t, int) { return 0; }

void sort_rows(const RowSort& sort, int first_bit, void*) {
    std::vector<std::int32_t> places(static_cast<std::size_t>(sort.count));
    std::iota(places.begin(), places.end(), 0);
    const std::uint64_t mask = (~std::uint64_t{0} >> (64 - sort.bits)) >> first_bit << first_bit;
    std::stable_sort(places.begin(), places.end(),
                     [&](std::int32_t i, std::int32_t j) { return (sort.keys[i] & mask) < (sort.keys[j] & mask); });
    for (std::int32_t i = 0; i < sort.count; ++i) {
        const std::int32_t place = places[static_cast<std::size_t>(i)];
        sort.sorted[i] = sort.keys[place], sort.order[i] = sort.rows[place];
    }
}

void build_bvh(BvhBuild build, void* memory, std::size_t memory_bytes, Stream stream) {
    const std::int32_t faces = build.face_rows.rows, shapes = build.face_rows.shapes;
    Scratch scratch(memory);
    build.lay_out(scratch, faces, shapes);
    require_bytes(memory_bytes, scratch.bytes());
    std::array<Box, bounds_threads> partial;
    for (std::int32_t shape = 0; shape < shapes; ++shape)
        begin_tree(LoopTeam{bounds_threads}, build, shape, partial.data());
    for_each_row(code_face, build, faces);
    sort_rows(build.sort, 0, stream);
    for_each_row(climb_from, build, faces);
}

void sample_surface(const SurfaceSampling& batch, Stream) {
    for_each_row(measure_face, batch, batch.face_rows.rows);
    std::array<double, sum_threads> tile;
    for (std::int32_t shape = 0; shape < batch.face_rows.shapes; ++shape)
        sum_areas(LoopTeam{sum_threads}, batch, shape, tile.data());
    for_each_row(draw_sample, batch, batch.sample_rows.rows);
}

void morton_order(Ordering batch, void* memory, std::size_t memory_bytes, Stream stream) {
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    for_each_row(code_morton, batch, batch.rows.rows);
    sort_rows(batch.sort, 0, stream);
    for_each_row(number_row, batch, batch.rows.rows);
}

void ray_direction_order(Ordering batch, void* memory, std::size_t memory_bytes, Stream stream) {
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    for_each_row(code_polar, batch, batch.rows.rows);
    RowSort by_polar_angle = batch.sort;
    by_polar_angle.bits = 32;
    sort_rows(by_polar_angle, 0, stream);
    for_each_row(code_azimuth, batch, batch.rows.rows);
    sort_rows(batch.sort, 0, stream);
    for_each_row(number_row, batch, batch.rows.rows);
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
