#include "kdtree.hpp"

#include <limits>
#include <numeric>
#include <stdexcept>

namespace nepa3d {

namespace {

int widest_axis(Points points, const std::int32_t* order, std::size_t count) {
    Vec3 low = points[order[0]], high = low;
    for (std::size_t i = 1; i < count; ++i) {
        low = min(low, points[order[i]]);
        high = max(high, points[order[i]]);
    }
    const Vec3 extent = high - low;
    if (extent.x >= extent.y && extent.x >= extent.z) return 0;
    return extent.y >= extent.z ? 1 : 2;
}

}  // namespace

struct KdTree::Search {
    Vec3 query;
    float best = std::numeric_limits<float>::infinity();
    std::int32_t index = std::numeric_limits<std::int32_t>::max();
};

KdTree::KdTree(Points points) : size_(points.size()) {
    if (points.empty()) throw std::invalid_argument("points must not be empty");
    if (points.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("points must number less than 2^31");
    std::size_t leaves = 1;
    while (leaves * leaf_size < points.size()) leaves *= 2;
    splits_.resize(leaves - 1);
    leaves_.resize(leaves);
    std::vector<std::int32_t> order(points.size());
    std::iota(order.begin(), order.end(), 0);
    build(points, order.data(), order.size(), 0);
}

void KdTree::build(Points points, std::int32_t* order, std::size_t count, std::size_t node) {
    if (node >= splits_.size()) {
        Leaf& leaf = leaves_[node - splits_.size()];
        for (int lane = 0; lane < leaf_size; ++lane) {
            const bool used = static_cast<std::size_t>(lane) < count;
            const float far = std::numeric_limits<float>::infinity();
            const Vec3 point = used ? points[order[lane]] : Vec3{far, far, far};
            leaf.x[lane] = point.x, leaf.y[lane] = point.y, leaf.z[lane] = point.z;
            leaf.index[lane] = used ? order[lane] : std::numeric_limits<std::int32_t>::max();
        }
        return;
    }
    const int axis = widest_axis(points, order, count);
    const std::size_t half = count / 2;
    std::nth_element(order, order + half, order + count,
                     [&](std::int32_t a, std::int32_t b) { return points[a][axis] < points[b][axis]; });
    splits_[node] = {points[order[half]][axis], axis};
    build(points, order, half, 2 * node + 1);
    build(points, order + half, count - half, 2 * node + 2);
}

/// `offset` is the query's distance to the node's cell along each axis. Summing its squares in the order of the
/// leaves' distances keeps the bound below every distance in the cell, rounding included.
void KdTree::visit(std::size_t node, Vec3 offset, Search& search) const {
    while (node < splits_.size()) {
        const Split split = splits_[node];
        const float delta = search.query[split.axis] - split.value;
        const std::size_t nearer = 2 * node + 1 + (delta >= 0), farther = 2 * node + 2 - (delta >= 0);
        visit(nearer, offset, search);
        offset[split.axis] = delta;
        if (dot(offset, offset) > search.best) return;
        node = farther;
    }
    const Leaf& leaf = leaves_[node - splits_.size()];
    float squared[leaf_size];
    for (int lane = 0; lane < leaf_size; ++lane) {
        const float dx = leaf.x[lane] - search.query.x;
        const float dy = leaf.y[lane] - search.query.y;
        const float dz = leaf.z[lane] - search.query.z;
        squared[lane] = dx * dx + dy * dy + dz * dz;
    }
    for (int lane = 0; lane < leaf_size; ++lane) {
        if (squared[lane] < search.best ||
            (squared[lane] == search.best && leaf.index[lane] < search.index)) {
            search.best = squared[lane];
            search.index = leaf.index[lane];
        }
    }
}

KdTree::Nearest KdTree::nearest(Vec3 query) const {
    Search search{query};
    visit(0, Vec3{0, 0, 0}, search);
    return {std::sqrt(search.best), search.index};
}

}  // namespace nepa3d
