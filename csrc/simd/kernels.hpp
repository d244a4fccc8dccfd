/// The kernels that are compiled once for each instruction set, and the choice between them at run time.
#pragma once

#include <cstddef>
#include <cstdint>

#include "vec3.hpp"

namespace nepa3d {

constexpr int node_width = 16;  ///< children of a node, points or triangles of a leaf: one lane each

/// Sixteen boxes side by side; the unused ones are inverted, infinitely far from everything.
struct alignas(64) Boxes {
    float low[3][node_width], high[3][node_width];
};

// What a kernel sees of a KdTree.

struct alignas(64) PointLeaf {
    float x[node_width], y[node_width], z[node_width];  // in the order of their indices; the unused are infinitely far
    std::int32_t index[node_width];
};

/// Child c of node n on level l is node 16 n + c on level l - 1; below level 0 it is a leaf. The last level is the
/// root.
struct KdTreeView {
    const PointLeaf* leaves;
    const Boxes* const* levels;
    int depth;  ///< number of levels
};

struct Nearest {
    float distance;
    std::int32_t index;
};

// What a kernel sees of a TriangleBvh.

/// Sixteen child boxes, and where they lead: a node, or a leaf stored as its complement (~leaf).
struct alignas(64) BvhNode {
    Boxes boxes;
    std::int32_t child[node_width];
};

/// Corners by [corner][axis]; those of unused lanes are NaN.
struct alignas(64) TriangleLeaf {
    float corner[3][3][node_width];
    std::int32_t face[node_width];
};

struct BvhView {
    const BvhNode* nodes;  ///< the first is the root
    const TriangleLeaf* leaves;
};
constexpr int max_bvh_depth = 40;

struct RayHit {
    float t;  ///< ray parameter of the hit; infinity on a miss
    std::int32_t face;  ///< -1 on a miss
    float u, v;  ///< weights of corners b and c; corner a weighs 1 - u - v
};

struct SurfacePoint {
    float distance;
    std::int32_t face;
    Vec3 point;
};

/// `width` neighbouring lines of `size` values: value i of line w is from[i * stride + w]. Every value becomes the
/// least of from[j] + weight * (i - j)^2 over its line, in to[i * to_stride + w]. `none` stands where there is
/// nothing to measure to: a value above every result, to which a parabola can be added.
template <class T>
struct Lines {
    const T* from;
    std::size_t stride;
    T* to;
    std::size_t to_stride;
    std::size_t size, width;
    T weight, none;
    T* scratch;  ///< room for scratch_size(size) values

    static constexpr std::size_t scratch_size(std::size_t size) { return (4 * size + 1) * (64 / sizeof(T)); }
};

/// Rays on their way through a grid of bits, each array by ray. A ray stands in cell `at`, which it entered at
/// `entered`; `boundary`, `stride`, `step` and `left` are by axis: the parameter of the next boundary, what it grows
/// by, the change of `at`, and how many cells there are beyond this one.
struct VoxelWalk {
    static constexpr std::size_t capacity = 256;
    alignas(64) double entered[capacity];
    alignas(64) double leave[capacity];  ///< the walk may end where `entered` exceeds this
    alignas(64) double boundary[3][capacity], stride[3][capacity];
    alignas(64) std::int64_t at[capacity], step[3][capacity], left[3][capacity];
    alignas(64) std::int64_t hit[capacity];  ///< out: not 0 if an occupied cell was met, entered at `entered`
};

/// Cell (x * scale + offset) * cells of each axis, clamped to [0, last]; last is at most 1023.
struct CellGrid {
    float scale;
    float offset[3], cells[3];
    int last;
};

/// One function for each kernel.
struct Kernels {
    const char* name;  ///< "baseline", "avx2" or "avx512"

    /// KdTree::nearest of queries[order[i]] into found[order[i]], for i < count.
    void (*nearest)(const KdTreeView& tree, const Vec3* queries, const std::uint32_t* order, std::size_t count,
                    Nearest* found);
    /// TriangleBvh::first_hits of `count` rays.
    void (*first_hits)(const BvhView& bvh, const Vec3* origins, const Vec3* directions, std::size_t count,
                       RayHit* found);
    /// TriangleBvh::closest_points of queries[order[i]] into found[order[i]], for i < count.
    void (*closest_points)(const BvhView& bvh, const Vec3* queries, const std::uint32_t* order, std::size_t count,
                           SurfacePoint* found);
    /// One axis of a distance transform, see distance_transform.hpp; for two sizes of integers and for doubles.
    void (*lower_envelopes_16)(const Lines<std::int16_t>& lines);
    void (*lower_envelopes_32)(const Lines<std::int32_t>& lines);
    void (*lower_envelopes_double)(const Lines<double>& lines);
    /// Walks the first `count` rays of `walk` to the first cell whose bit is set, looking at no more than `max_steps`.
    void (*walk_voxels)(VoxelWalk& walk, std::size_t count, const std::uint32_t* occupied, int max_steps);
    /// Morton code of each point's cell, x lowest.
    void (*morton_codes)(const Vec3* points, std::size_t count, const CellGrid& grid, std::uint32_t* codes);
    /// float32 to the bits of float16.
    void (*to_half)(const float* from, std::uint16_t* to, std::size_t count);
};

/// The table of the widest instruction set that this processor runs, or of the one that use_kernels chose.
const Kernels& kernels();

/// Chooses the table `name`; false if this build or this processor has none such. For tests: all give the same answers.
bool use_kernels(const char* name);

}  // namespace nepa3d

#ifdef NEPA3D_ISA
namespace nepa3d::NEPA3D_ISA {
void nearest(const KdTreeView&, const Vec3*, const std::uint32_t*, std::size_t, Nearest*);
void first_hits(const BvhView&, const Vec3*, const Vec3*, std::size_t, RayHit*);
void closest_points(const BvhView&, const Vec3*, const std::uint32_t*, std::size_t, SurfacePoint*);
template <class T>
void lower_envelopes(const Lines<T>&);
void walk_voxels(VoxelWalk&, std::size_t, const std::uint32_t*, int);
void morton_codes(const Vec3*, std::size_t, const CellGrid&, std::uint32_t*);
void to_half(const float*, std::uint16_t*, std::size_t);
}  // namespace nepa3d::NEPA3D_ISA
#endif
