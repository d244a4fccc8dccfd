/// The queries of one shape and the answers of its mesh, its point cloud and its grids, in one call.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "bvh.hpp"
#include "mesh.hpp"
#include "vec3.hpp"

namespace nepa3d {

/// All randomness of a shape's pools; who draws it decides what the seed is. P queries, R rays.
struct PoolDraws {
    Points surface;                       ///< (N, 3) in [0, 1]: uniforms of the point cloud's surface samples
    Points reference;  ///< (M, 3) in [0, 1]: of those that distances are measured to; none: the mesh
    Points anywhere;  ///< (A, 3) in [0, 1): uniforms of the first A queries
    Points jitter;  ///< (P - A, 3): normal deviates of the others, each around a surface sample,
    std::span<const std::int64_t> around;  ///< (P - A,) with this index
    Points origins, directions;  ///< (R, 3)
};

/// An occupancy grid: its side in cells and the rounds it is dilated by.
struct PoolGrid {
    int side, dilate;
    bool operator==(const PoolGrid&) const = default;
};

struct PoolSizes {
    float jitter;  ///< standard deviation of the queries near the surface
    PoolGrid field, cloud;  ///< of the distance field, and of the rays in the cloud
    int max_steps;  ///< cells a ray in the cloud visits at most
};

/// Answers to rays: 0 or 1, distance and normal of the first hit; zeros on a miss.
struct PoolRays {
    std::span<float> hit, t;
    std::span<Vec3> normal;
};

/// Where the pools go, each of its draws' length. Parts that are empty are not computed: the three of the field
/// together, and the rays in the cloud.
struct Pools {
    std::span<Vec3> points, normals;  ///< (N,) the point cloud
    std::span<Vec3> queries;  ///< (P,) in [-1, 1]^3
    std::span<float> distance;  ///< (P,) to the reference samples or the mesh
    std::span<float> cloud_distance;  ///< (P,) to the point cloud
    std::span<std::uint8_t> occupancy;  ///< (G^3,) cells of the field
    std::span<std::uint16_t> field;  ///< (G^3,) distance from each cell to the occupied ones, as float16
    std::span<float> field_distance;  ///< (P,) the same in float32, interpolated
    PoolRays mesh, cloud;  ///< (R,)
};

/// Fills `out` with what the steps of nepa3d.shapes.query_pools.composed_pools give one after the other, bit for bit.
/// `bvh` is the tree of the mesh. Throws std::invalid_argument as SurfaceSampler and KdTree do, and where `around` names
/// no sample.
void fill_pools(Points vertices, std::span<const Face> faces, const TriangleBvh& bvh, const PoolDraws& draws,
                const PoolSizes& sizes, const Pools& out, int threads);

}  // namespace nepa3d
