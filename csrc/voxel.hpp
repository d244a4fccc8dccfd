/// Occupancy grids of the cube [-1, 1]^3: filling, dilation, ray walks, interpolation.
/// A grid of side G is stored x-major: cell (i, j, k) at (i * G + j) * G + k, centred on (i + 0.5) * 2 / G - 1.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "simd/kernels.hpp"
#include "vec3.hpp"

namespace nepa3d {

/// Marks the cells that hold a point, those outside the cube in the nearest cell, then grows the marked set by
/// `dilate` rounds of 6-neighbours. Returns G^3 bytes, 0 or 1. O(N + dilate * G^3). Points must be finite.
std::vector<std::uint8_t> voxelize(Points points, int grid, int dilate);

struct VoxelHit {
    bool hit;
    float t;  ///< ray parameter at which the occupied cell is entered; 0 on a miss
};

/// An occupancy grid prepared for many rays.
class VoxelRays {
public:
    /// `occupancy` holds grid^3 cells.
    VoxelRays(std::span<const std::uint8_t> occupancy, int grid);

    /// First occupied cell along each ray through the cube (Amanatides and Woo: A Fast Voxel Traversal Algorithm,
    /// 1987), looking at no more than `max_steps` cells. x is stepped only if its next boundary is strictly the
    /// nearest of the three, else y if strictly nearer than z, else z. A zero direction misses.
    void first_hits(Points origins, Points directions, int max_steps, std::span<VoxelHit> found, int threads) const;

private:
    bool start(Vec3 origin, Vec3 direction, VoxelWalk& walk, std::size_t ray) const;

    int grid_;
    std::vector<std::uint32_t> bits_;
    Vec3d low_, high_;  ///< bounds of the occupied cells and one cell more: a ray that stays outside meets none
};

/// Trilinear interpolation of cell-centred values at one point: weights from the floor, indices clamped.
float trilinear_sample(std::span<const float> values, int grid, Vec3 point);

}  // namespace nepa3d
