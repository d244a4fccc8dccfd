#include "launch.hpp"
#include "runtime.cuh"
#include "voxel.cuh"

namespace nepa3d::cuda {

void voxelize(const Voxelize& batch, Stream stream) {
    launch_rows<mark_cell>(batch, batch.point_rows.rows, stream, "voxelize");
}

void dilate(const Dilate& round, std::int32_t cells, Stream stream) {
    launch_rows<dilate_cell>(round, cells, stream, "dilate");
}

void trilinear_sample(const Trilinear& batch, Stream stream) {
    launch_rows<interpolate>(batch, batch.point_rows.rows, stream, "trilinear_sample");
}

void walk_voxels(const VoxelWalks& batch, Stream stream) {
    launch_rows<walk_ray>(batch, batch.ray_rows.rows, stream, "walk_voxels");
}

}  // namespace nepa3d::cuda
