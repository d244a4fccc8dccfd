/// What bindings.cpp calls: each operation over a batch on a device's stream. The .cu files hold the launchers of
/// `nepa3d._cuda`, host.cpp those of its twin `nepa3d._cuda_host`, which run the same thread functions on the CPU.
/// All pointers are the device's. Launchers return without waiting and throw std::runtime_error with the name of the
/// call of the CUDA runtime that failed.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "bvh_build.cuh"
#include "closest_points.cuh"
#include "distance_transform.cuh"
#include "first_hits.cuh"
#include "nearest.cuh"
#include "nearest_tree.cuh"
#include "ordering.cuh"
#include "surface.cuh"
#include "voxel.cuh"

namespace nepa3d::cuda {

using Stream = void*;  ///< a cudaStream_t

/// Makes a device current, and the one before it again.
class OnDevice {
public:
    explicit OnDevice(int device);
    ~OnDevice();
    OnDevice(const OnDevice&) = delete;
    OnDevice& operator=(const OnDevice&) = delete;

private:
    int before_ = 0;
};

struct DeviceInfo {
    std::string name;
    int major, minor;  ///< compute capability
    std::size_t memory;
};
std::vector<DeviceInfo> devices();

void nearest(const NearestBatch& batch, Stream stream);
/// Needs nearest_in_tree_bytes.
void nearest_in_tree(NearestInTree batch, void* scratch, std::size_t scratch_bytes, Stream stream);

/// Needs bvh_scratch_bytes.
void build_bvh(BvhBuild build, void* scratch, std::size_t scratch_bytes, Stream stream);
void first_hits(const FirstHits& batch, Stream stream);
void closest_points(const ClosestPoints& batch, Stream stream);

void sample_surface(const SurfaceSampling& batch, Stream stream);

/// Both need ordering_bytes.
void morton_order(Ordering batch, void* scratch, std::size_t scratch_bytes, Stream stream);
void ray_direction_order(Ordering batch, void* scratch, std::size_t scratch_bytes, Stream stream);

void voxelize(const Voxelize& batch, Stream stream);
void dilate(const Dilate& round, std::int32_t cells, Stream stream);
void trilinear_sample(const Trilinear& batch, Stream stream);
void walk_voxels(const VoxelWalks& batch, Stream stream);
/// Needs transform_scratch_bytes.
void distance_transform(const Transforms& batch, void* scratch, std::size_t scratch_bytes, Stream stream);

}  // namespace nepa3d::cuda
