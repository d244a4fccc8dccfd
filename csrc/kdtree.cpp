#include "kdtree.hpp"

#include <algorithm>
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

}  // namespace

KdTree::KdTree(Points points) : size_(points.size()) {
    if (points.empty()) throw std::invalid_argument("points must not be empty");
    if (points.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("points must number less than 2^31");
    std::vector<Float4> indexed(points.size());
    for (std::size_t i = 0; i < points.size(); ++i) indexed[i] = with_index(points[i], static_cast<std::uint32_t>(i));
    std::size_t leaves = 1;
    while (leaves * node_width < points.size()) leaves *= 2;
    leaves_.resize(leaves);
    fill_leaves(indexed, 0, leaves);
    build_boxes();
}

void KdTree::fill_leaves(std::span<Float4> points, std::size_t first_leaf, std::size_t leaves) {
    if (leaves == 1) {
        PointLeaf& leaf = leaves_[first_leaf];
        std::sort(points.begin(), points.end(), [](Float4 a, Float4 b) { return index_of(a) < index_of(b); });
        for (std::size_t lane = 0; lane < node_width; ++lane) {
            constexpr std::uint32_t unused = std::numeric_limits<std::int32_t>::max();
            const Float4 point =
                lane < points.size() ? points[lane] : with_index({infinity, infinity, infinity}, unused);
            leaf.x[lane] = point[0], leaf.y[lane] = point[1], leaf.z[lane] = point[2];
            leaf.index[lane] = static_cast<std::int32_t>(index_of(point));
        }
        return;
    }
    Box4 box;
    for (const Float4 point : points) box.add(point, point);
    const std::size_t half = points.size() / 2;
    const auto halve = [&](const auto& coordinate) {
        select_nth(points.data(), points.data() + half, points.data() + points.size(), coordinate);
    };
    const int axis = box.widest_axis();
    if (axis == 0) halve([](Float4 p) { return p[0]; });
    if (axis == 1) halve([](Float4 p) { return p[1]; });
    if (axis == 2) halve([](Float4 p) { return p[2]; });
    fill_leaves(points.first(half), first_leaf, leaves / 2);
    fill_leaves(points.subspan(half), first_leaf + leaves / 2, leaves / 2);
}

void KdTree::build_boxes() {
    std::vector<Box4> boxes(leaves_.size());
    for (std::size_t i = 0; i < leaves_.size(); ++i) {
        const PointLeaf& leaf = leaves_[i];
        for (int lane = 0; lane < node_width && leaf.x[lane] < infinity; ++lane) {
            const Float4 point{leaf.x[lane], leaf.y[lane], leaf.z[lane], 0};
            boxes[i].add(point, point);
        }
    }
    do {
        std::vector<Boxes> level((boxes.size() + node_width - 1) / node_width);
        std::vector<Box4> parents(level.size());
        for (std::size_t i = 0; i < level.size() * node_width; ++i) {
            const Box4 box = i < boxes.size() ? boxes[i] : Box4{};
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
    nearest(queries, spatial_order(queries), found, threads);
}

void KdTree::nearest(Points queries, std::span<const std::uint32_t> order, std::span<Nearest> found,
                     int threads) const {
    std::array<const Boxes*, 8> levels{};  // 16^8 exceeds the number of leaves
    for (std::size_t i = 0; i < levels_.size(); ++i) levels[i] = levels_[i].data();
    const KdTreeView view{leaves_.data(), levels.data(), static_cast<int>(levels_.size())};
    parallel_for(queries.size(), threads, 1024, 4096, [&](std::size_t begin, std::size_t end) {
        kernels().nearest(view, queries.data(), order.data() + begin, end - begin, found.data());
    });
}

}  // namespace nepa3d
