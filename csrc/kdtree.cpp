#include "kdtree.hpp"

#include <array>
#include <limits>
#include <stdexcept>
#include <utility>

#include "ordering.hpp"
#include "parallel.hpp"
#include "partition.hpp"

namespace nepa3d {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();

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

KdTree::KdTree(Points points) : size_(points.size()) {
    if (points.empty()) throw std::invalid_argument("points must not be empty");
    if (points.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("points must number less than 2^31");
    std::vector<Indexed> indexed(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) indexed[i] = {points[i], static_cast<std::int32_t>(i)};
    std::size_t leaves = 1;
    while (leaves * node_width < points.size()) leaves *= 2;
    leaves_.resize(leaves);
    fill_leaves(indexed, 0, leaves);
    build_boxes();
}

void KdTree::fill_leaves(std::span<Indexed> points, std::size_t first_leaf, std::size_t leaves) {
    if (leaves == 1) {
        PointLeaf& leaf = leaves_[first_leaf];
        for (std::size_t lane = 0; lane < node_width; ++lane) {
            const bool used = lane < points.size();
            const Vec3 point = used ? points[lane].point : Vec3{infinity, infinity, infinity};
            leaf.x[lane] = point.x, leaf.y[lane] = point.y, leaf.z[lane] = point.z;
            leaf.index[lane] = used ? points[lane].index : std::numeric_limits<std::int32_t>::max();
        }
        return;
    }
    Box box;
    for (const Indexed& p : points) box.add(p.point, p.point);
    const std::size_t half = points.size() / 2;
    const auto halve = [&](const auto& coordinate) {
        select_nth(points.data(), points.data() + half, points.data() + points.size(), coordinate);
    };
    const int axis = box.widest_axis();
    if (axis == 0) halve([](const Indexed& p) { return p.point.x; });
    if (axis == 1) halve([](const Indexed& p) { return p.point.y; });
    if (axis == 2) halve([](const Indexed& p) { return p.point.z; });
    fill_leaves(points.first(half), first_leaf, leaves / 2);
    fill_leaves(points.subspan(half), first_leaf + leaves / 2, leaves / 2);
}

void KdTree::build_boxes() {
    std::vector<Box> boxes(leaves_.size());
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
        const PointLeaf& leaf = leaves_[i];
        for (int lane = 0; lane < node_width && leaf.x[lane] < infinity; ++lane) {
            const Vec3 point{leaf.x[lane], leaf.y[lane], leaf.z[lane]};
            boxes[i].add(point, point);
        }
    }
    do {
        std::vector<Boxes> level((boxes.size() + node_width - 1) / node_width);
        std::vector<Box> parents(level.size());
        for (std::size_t i = 0; i < level.size() * node_width; ++i) {
            const Box box = i < boxes.size() ? boxes[i] : Box{};
            for (int axis = 0; axis < 3; ++axis) {
                level[i / node_width].low[axis][i % node_width] = box.low[axis];
                level[i / node_width].high[axis][i % node_width] = box.high[axis];
            }
            parents[i / node_width].add(box.low, box.high);
        }
        levels_.push_back(std::move(level));
        boxes = std::move(parents);
    } while (boxes.size() > 1);
}

void KdTree::nearest(Points queries, std::span<Nearest> found, int threads) const {
    const std::vector<std::uint32_t> order = spatial_order(queries);
    std::array<const Boxes*, 8> levels{};  // 16^8 exceeds the number of leaves
    for (std::size_t i = 0; i < levels_.size(); ++i) levels[i] = levels_[i].data();
    const KdTreeView view{leaves_.data(), levels.data(), static_cast<int>(levels_.size())};
    parallel_for(queries.size(), threads, 1024, [&](std::size_t begin, std::size_t end) {
        kernels().nearest(view, queries.data(), order.data() + begin, end - begin, found.data());
    });
}

}  // namespace nepa3d
