/// Exact nearest neighbours in a point cloud.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "vec3.hpp"

namespace nepa3d {

/// A balanced kd-tree (Bentley, 1975): split at the median of the widest axis, leaves of up to 8 points kept in
/// structure-of-arrays form, nodes numbered as in a binary heap. Built in O(N log N); a query costs O(log N) on
/// average. Points must be finite. The tree keeps its own copy of them.
class KdTree {
public:
    /// Throws std::invalid_argument if `points` is empty or has more than 2^31 - 1 members.
    explicit KdTree(Points points);

    struct Nearest {
        float distance;
        std::int32_t index;
    };

    /// The nearest point; of equally near ones (compared by squared float32 distance) the lowest index.
    Nearest nearest(Vec3 query) const;

    std::size_t size() const { return size_; }

private:
    static constexpr int leaf_size = 8;

    struct Split {
        float value;
        int axis;
    };
    struct Leaf {
        float x[leaf_size], y[leaf_size], z[leaf_size];
        std::int32_t index[leaf_size];
    };
    struct Search;

    void build(Points points, std::int32_t* order, std::size_t count, std::size_t node);
    void visit(std::size_t node, Vec3 offset, Search& search) const;

    std::size_t size_;
    std::vector<Split> splits_;
    std::vector<Leaf> leaves_;
};

}  // namespace nepa3d
