#include "kdtree.hpp"

#include <array>
#include <bit>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "ordering.hpp"
#include "parallel.hpp"
#include "simd.hpp"

namespace nepa3d {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 8 * 11;  // seven siblings wait on each of the levels of 2^31 points

struct Box {
    Vec3 low{infinity, infinity, infinity}, high{-infinity, -infinity, -infinity};

    void add(Vec3 low_corner, Vec3 high_corner) { low = min(low, low_corner), high = max(high, high_corner); }
    int widest_axis() const {
        const Vec3 extent = high - low;
        if (extent.x >= extent.y && extent.x >= extent.z) return 0;
        return extent.y >= extent.z ? 1 : 2;
    }
};

}  // namespace

KdTree::KdTree(Points points) : points_(points.begin(), points.end()) {
    if (points.empty()) throw std::invalid_argument("points must not be empty");
    if (points.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("points must number less than 2^31");
    std::vector<Indexed> indexed(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) indexed[i] = {points[i], static_cast<std::int32_t>(i)};
    std::size_t leaves = 1;
    while (leaves * leaf_size < points.size()) leaves *= 2;
    leaves_.resize(leaves);
    fill_leaves(indexed, 0, leaves);
    build_boxes();
}

void KdTree::fill_leaves(std::span<Indexed> points, std::size_t first_leaf, std::size_t leaves) {
    if (leaves == 1) {
        Leaf& leaf = leaves_[first_leaf];
        for (std::size_t lane = 0; lane < leaf_size; ++lane) {
            const bool used = lane < points.size();
            const Vec3 point = used ? points[lane].point : Vec3{infinity, infinity, infinity};
            leaf.x[lane] = point.x, leaf.y[lane] = point.y, leaf.z[lane] = point.z;
            leaf.index[lane] = used ? points[lane].index : std::numeric_limits<std::int32_t>::max();
        }
        return;
    }
    Box box;
    for (const Indexed& p : points) box.add(p.point, p.point);
    const int axis = box.widest_axis();
    const std::size_t half = points.size() / 2;
    const auto halve = [&](auto coordinate) {
        std::nth_element(points.begin(), points.begin() + static_cast<std::ptrdiff_t>(half), points.end(),
                         [&](const Indexed& a, const Indexed& b) { return coordinate(a) < coordinate(b); });
    };
    if (axis == 0) halve([](const Indexed& p) { return p.point.x; });
    if (axis == 1) halve([](const Indexed& p) { return p.point.y; });
    if (axis == 2) halve([](const Indexed& p) { return p.point.z; });
    fill_leaves(points.first(half), first_leaf, leaves / 2);
    fill_leaves(points.subspan(half), first_leaf + leaves / 2, leaves / 2);
}

void KdTree::build_boxes() {
    std::vector<Box> boxes(leaves_.size());
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
        const Leaf& leaf = leaves_[i];
        for (int lane = 0; lane < leaf_size && leaf.x[lane] < infinity; ++lane) {
            const Vec3 point{leaf.x[lane], leaf.y[lane], leaf.z[lane]};
            boxes[i].add(point, point);
        }
    }
    do {
        std::vector<Boxes> level((boxes.size() + fanout - 1) / fanout);
        std::vector<Box> parents(level.size());
        for (std::size_t i = 0; i < level.size() * fanout; ++i) {
            const Box box = i < boxes.size() ? boxes[i] : Box{};
            Boxes& node = level[i / fanout];
            const std::size_t child = i % fanout;
            node.low_x[child] = box.low.x, node.low_y[child] = box.low.y, node.low_z[child] = box.low.z;
            node.high_x[child] = box.high.x, node.high_y[child] = box.high.y, node.high_z[child] = box.high.z;
            parents[i / fanout].add(box.low, box.high);
        }
        levels_.push_back(std::move(level));
        boxes = std::move(parents);
    } while (boxes.size() > 1);
}

/// A box is left out when its squared distance exceeds the best one. Summing squares in the order of the leaves'
/// distances keeps that bound below every distance in the box, rounding included.
NEPA3D_SIMD void KdTree::nearest_along(Points queries, std::span<const std::uint32_t> order,
                                       std::span<Nearest> found) const {
    struct Pending {
        float squared;
        std::int32_t level;  // -1: a leaf
        std::uint32_t node;
    };
    std::array<Pending, max_pending> stack;
    std::int32_t index = 0;
    for (const std::uint32_t row : order) {
        const Vec3 query = queries[row];
        const Vec3 start = points_[static_cast<std::size_t>(index)];
        const float sx = start.x - query.x, sy = start.y - query.y, sz = start.z - query.z;
        float best = sx * sx + sy * sy + sz * sz;
        int top = 0;
        stack[top++] = {0, static_cast<std::int32_t>(levels_.size()) - 1, 0};
        while (top > 0) {
            const Pending here = stack[--top];
            if (here.squared > best) continue;
            if (here.level < 0) {
                const Leaf& leaf = leaves_[here.node];
                float squared[leaf_size];
                float least = infinity;
                for (int lane = 0; lane < leaf_size; ++lane) {
                    const float dx = leaf.x[lane] - query.x, dy = leaf.y[lane] - query.y, dz = leaf.z[lane] - query.z;
                    squared[lane] = dx * dx + dy * dy + dz * dz;
                    least = squared[lane] < least ? squared[lane] : least;
                }
                if (least > best) continue;
                int lowest = std::numeric_limits<int>::max();
                for (int lane = 0; lane < leaf_size; ++lane) {
                    const int candidate = squared[lane] == least ? leaf.index[lane] : std::numeric_limits<int>::max();
                    lowest = candidate < lowest ? candidate : lowest;
                }
                if (least < best || lowest < index) {
                    best = least;
                    index = lowest;
                }
                continue;
            }
            const Boxes& node = levels_[static_cast<std::size_t>(here.level)][here.node];
            float squared[fanout];
            for (int child = 0; child < fanout; ++child) {
                const float dx = std::max(std::max(node.low_x[child] - query.x, query.x - node.high_x[child]), 0.0f);
                const float dy = std::max(std::max(node.low_y[child] - query.y, query.y - node.high_y[child]), 0.0f);
                const float dz = std::max(std::max(node.low_z[child] - query.z, query.z - node.high_z[child]), 0.0f);
                squared[child] = dx * dx + dy * dy + dz * dz;
            }
            unsigned near = 0;
            for (unsigned child = 0; child < fanout; ++child) near |= unsigned{squared[child] <= best && squared[child] < infinity} << child;
            for (const int below = top; near != 0; near &= near - 1) {
                const auto child = static_cast<std::uint32_t>(std::countr_zero(near));
                int place = top++;  // nearest on top
                for (; place > below && stack[place - 1].squared < squared[child]; --place)
                    stack[place] = stack[place - 1];
                stack[place] = {squared[child], here.level - 1, here.node * fanout + child};
            }
        }
        found[row] = {std::sqrt(best), index};
    }
}

void KdTree::nearest(Points queries, std::span<Nearest> found, int threads) const {
    const std::vector<std::uint32_t> order = spatial_order(queries);
    parallel_for(queries.size(), threads, 1024, [&](std::size_t begin, std::size_t end) {
        nearest_along(queries, std::span(order).subspan(begin, end - begin), found);
    });
}

}  // namespace nepa3d
