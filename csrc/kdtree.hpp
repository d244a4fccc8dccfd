/// Exact nearest neighbours in a point cloud.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "float4.hpp"
#include "simd/kernels.hpp"
#include "vec3.hpp"

namespace nepa3d {

/// A balanced kd-tree (Bentley, 1975) over points: halved at the median of the widest axis down to leaves of up to
/// 16, each run of 16 siblings under one node that holds their bounding boxes side by side. Built in O(N log N); a
/// query costs O(log N) on average. Points must be finite.
class KdTree {
public:
    /// Throws std::invalid_argument if `points` is empty or has more than 2^31 - 1 members.
    explicit KdTree(Points points);

    /// The nearest point of each query, into `found`, which has the same length; of equally near points (compared by
    /// squared float32 distance) the lowest index. Queries are visited along a Morton curve, so that neighbours go
    /// down the tree together. The answers do not depend on that, nor on `threads`.
    void nearest(Points queries, std::span<Nearest> found, int threads) const;
    /// The same with an order at hand, as spatial_order gives it: a permutation of the queries.
    void nearest(Points queries, std::span<const std::uint32_t> order, std::span<Nearest> found, int threads) const;

    std::size_t size() const { return size_; }

private:
    // Points with their index in the fourth lane.
    void fill_leaves(std::span<Float4> points, std::size_t first_leaf, std::size_t leaves);
    void build_boxes();

    std::size_t size_;
    std::vector<PointLeaf> leaves_;
    std::vector<std::vector<Boxes>> levels_;  ///< levels_[0] holds leaves' boxes, the last one node is the root
};

}  // namespace nepa3d
