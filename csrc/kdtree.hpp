/// Exact nearest neighbours in a point cloud.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "vec3.hpp"

namespace nepa3d {

/// A balanced kd-tree (Bentley, 1975) over points: halved at the median of the widest axis down to leaves of up to
/// 16, each run of eight siblings under one node that holds their bounding boxes side by side. Built in O(N log N); a
/// query costs O(log N) on average. Points must be finite. The tree keeps its own copy of them.
class KdTree {
public:
    /// Throws std::invalid_argument if `points` is empty or has more than 2^31 - 1 members.
    explicit KdTree(Points points);

    struct Nearest {
        float distance;
        std::int32_t index;
    };

    /// The nearest point of each query, into `found`, which has the same length; of equally near points (compared by
    /// squared float32 distance) the lowest index. Queries are visited along a Morton curve, so that each starts from
    /// the answer of a neighbour. The answers do not depend on that, nor on `threads`.
    void nearest(Points queries, std::span<Nearest> found, int threads) const;

    std::size_t size() const { return points_.size(); }

private:
    static constexpr int leaf_size = 16;
    static constexpr int fanout = 8;

    struct Indexed {
        Vec3 point;
        std::int32_t index;
    };
    struct Leaf {
        float x[leaf_size], y[leaf_size], z[leaf_size];  // the unused are infinitely far
        std::int32_t index[leaf_size];
    };
    struct Boxes {
        float low_x[fanout], low_y[fanout], low_z[fanout];  // the unused are infinitely far
        float high_x[fanout], high_y[fanout], high_z[fanout];
    };

    void fill_leaves(std::span<Indexed> points, std::size_t first_leaf, std::size_t leaves);
    void build_boxes();
    void nearest_along(Points queries, std::span<const std::uint32_t> order, std::span<Nearest> found) const;

    std::vector<Vec3> points_;
    std::vector<Leaf> leaves_;
    std::vector<std::vector<Boxes>> levels_;  ///< levels_[0] holds leaves' boxes, the last one node is the root
};

}  // namespace nepa3d
