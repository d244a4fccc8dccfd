/// The nearest of a shape's points to each of its queries, by a tree over the points; the answers of nearest.cuh.
///
/// Points and queries are sorted along Hilbert curves. Runs of 16 points are leaves, runs of 32 boxes are nodes. The 32
/// threads of a warp take 32 queries that follow each other down the tree together, so that no thread waits for another
/// and all read the same point or 32 boxes side by side: what csrc/simd/nearest.cpp does with the lanes of a register.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "bounds.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "row_sort.hpp"
#include "scratch.hpp"
#include "simd/scalar.hpp"
#include "team.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

constexpr int leaf_points = 16, node_boxes = 32, group_queries = 32;
constexpr int most_levels = 6;  // 16 * 32^6 points are more than there can be
constexpr int most_waiting = most_levels * node_boxes;
constexpr int place_bits = 27;  // a shape has at most 2^31 / 16 leaves
constexpr int coarse_bits = 6;  // of a place on a curve, that queries and points are not sorted by

struct alignas(16) TreePoint {
    Vec3 at;
    std::int32_t index;  ///< counted from its shape's first
};

struct alignas(16) TreeBox {
    float low[4], high[4];  ///< the last ones are not used
};

/// How many points a box of a level holds, but for a shape's last.
NEPA3D_HD inline std::int32_t points_of_level(int level) { return std::int32_t{leaf_points} << (5 * level); }

/// A box of a level, or a leaf, that waits to be visited: level << place_bits | its number among the shape's.
struct Waiting {
    float squared;  ///< from the box around the group
    std::int32_t place;
};

struct NearestInTree {
    const Vec3* points;
    Ragged point_rows;
    const Vec3* queries;
    Ragged query_rows;
    float* distance;  ///< out, as of NearestBatch
    std::int64_t* index;  ///< out
    std::int64_t* visits;  ///< null, or out, by group: nodes, boxes that a group looked at again, leaves

    // Scratch, see lay_out.
    Box *point_bounds, *query_bounds;  ///< (shapes,)
    RowSort point_sort, query_sort;
    TreePoint* tree_points;  ///< (points,), along each shape's curve
    TreeBox* boxes[most_levels];  ///< by level; a shape's begin where its blocks of so many points do
    int levels;

    void lay_out(Scratch& scratch) {
        const std::int32_t shapes = point_rows.shapes;
        point_bounds = scratch.take<Box>(static_cast<std::size_t>(shapes));
        query_bounds = scratch.take<Box>(static_cast<std::size_t>(shapes));
        point_sort.lay_out(scratch, point_rows.rows, bits_of_keys(shapes));
        query_sort.lay_out(scratch, query_rows.rows, bits_of_keys(shapes));
        tree_points = scratch.take<TreePoint>(static_cast<std::size_t>(point_rows.rows));
        levels = 0;
        do {
            const std::int32_t blocks = point_rows.blocks(points_of_level(levels));
            boxes[levels++] = scratch.take<TreeBox>(static_cast<std::size_t>(blocks));
        } while (levels < most_levels && points_of_level(levels) < point_rows.rows);
    }
};

inline std::size_t nearest_in_tree_bytes(std::int32_t points, std::int32_t queries, std::int32_t shapes) {
    NearestInTree batch{};
    batch.point_rows = {nullptr, shapes, points}, batch.query_rows = {nullptr, shapes, queries};
    Scratch scratch(nullptr);
    batch.lay_out(scratch);
    return scratch.bytes();
}

NEPA3D_HD inline void code_row(const RowSort& sort, const Vec3& at, const Box& bounds, std::int32_t shape,
                               std::int32_t row) {
    const std::uint32_t code = hilbert_code(cell_between(bounds.low[0], bounds.high[0], at.x),
                                            cell_between(bounds.low[1], bounds.high[1], at.y),
                                            cell_between(bounds.low[2], bounds.high[2], at.z));
    sort.keys[row] = static_cast<std::uint64_t>(shape) << 32 | code;
    sort.rows[row] = row;
}

NEPA3D_HD inline void code_point(const NearestInTree& batch, std::int32_t row) {
    const std::int32_t shape = batch.point_rows.shape_of(row);
    code_row(batch.point_sort, batch.points[row], batch.point_bounds[shape], shape, row);
}

NEPA3D_HD inline void code_query(const NearestInTree& batch, std::int32_t row) {
    const std::int32_t shape = batch.query_rows.shape_of(row);
    code_row(batch.query_sort, batch.queries[row], batch.query_bounds[shape], shape, row);
}

NEPA3D_HD inline void place_point(const NearestInTree& batch, std::int32_t place) {
    const std::int32_t row = batch.point_sort.order[place];
    const auto shape = static_cast<std::int32_t>(batch.point_sort.sorted[place] >> 32);
    batch.tree_points[place] = {batch.points[row], row - batch.point_rows.begin(shape)};
}

struct BoxLevel {
    NearestInTree batch;
    int level;
};

/// The box of one block of a level, from what it holds. Blocks without points are never looked at.
NEPA3D_HD inline void box_block(const BoxLevel& run, std::int32_t block) {
    const NearestInTree& batch = run.batch;
    const std::int32_t size = points_of_level(run.level);
    const std::int32_t shape = batch.point_rows.shape_of_block(block, size);
    const std::int32_t place = block - batch.point_rows.first_block(shape, size);
    const std::int32_t first = batch.point_rows.begin(shape) + place * size;
    const std::int32_t after = batch.point_rows.end(shape) - first < size ? batch.point_rows.end(shape) : first + size;
    Box box = Box::empty();
    if (run.level == 0) {
        for (std::int32_t i = first; i < after; ++i) box.add(batch.tree_points[i].at);
    } else {
        const std::int32_t below = points_of_level(run.level - 1);
        const TreeBox* child =
            batch.boxes[run.level - 1] + batch.point_rows.first_block(shape, below) + place * node_boxes;
        for (std::int32_t i = first; i < after; i += below, ++child) box.add(child->low, child->high);
    }
    batch.boxes[run.level][block] = {{box.low[0], box.low[1], box.low[2], 0},
                                     {box.high[0], box.high[1], box.high[2], 0}};
}

/// Squared distance between two boxes. Summed in the order of two points' distance it is, rounding included, no greater
/// than that between any point of the one and any point of the other.
NEPA3D_HD inline float squared_between(const float* low, const float* high, const float* other_low,
                                       const float* other_high) {
    const auto apart = [&](int axis) {
        return one_lane::max(one_lane::max(low[axis] - other_high[axis], other_low[axis] - high[axis]), 0);
    };
    const float x = apart(0), y = apart(1), z = apart(2);
    return x * x + y * y + z * z;
}

/// Numbers for floats that are not negative, in their order.
NEPA3D_HD inline std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }

/// One query and its nearest point so far.
struct TreeQuery {
    float at[3];
    float squared;
    std::int32_t index;
    std::int32_t row;  ///< -1 for a thread without a query, which does as the group's last

    NEPA3D_HD bool within(const TreeBox& box) const { return squared_between(box.low, box.high, at, at) <= squared; }

    /// Of equally near points the lowest index.
    NEPA3D_HD void compare(const TreePoint& point) {
        const Vec3 between = point.at - Vec3{at[0], at[1], at[2]};
        const float candidate = dot(between, between);
        if (candidate < squared || (candidate == squared && point.index < index))
            squared = candidate, index = point.index;
    }
};

/// One warp's 32 queries; `waiting` holds most_waiting places.
template <class Team>
NEPA3D_DEVICE void nearest_group(const Team& team, const NearestInTree& batch, std::int32_t group, Waiting* waiting) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    const std::int32_t shape = batch.query_rows.shape_of_block(group, group_queries);
    const std::int32_t begin =
        batch.query_rows.begin(shape) + (group - batch.query_rows.first_block(shape, group_queries)) * group_queries;
    const std::int32_t end = batch.query_rows.end(shape);
    if (begin >= end) return;
    const std::int32_t first_point = batch.point_rows.begin(shape), count = batch.point_rows.end(shape) - first_point;

    typename Team::template Local<TreeQuery> query(team);
    team.each([&](int thread) {
        const std::int32_t place = begin + thread;
        const std::int32_t row = batch.query_sort.order[place < end ? place : end - 1];
        TreeQuery& mine = query[thread];
        for (int axis = 0; axis < 3; ++axis) mine.at[axis] = batch.queries[row][axis];
        mine.squared = infinity, mine.index = 0, mine.row = place < end ? row : -1;
    });
    float low[3], high[3], centre[3];
    for (int axis = 0; axis < 3; ++axis) {
        // Floats as numbers in their order, whatever their signs.
        const auto rising = [&](int thread) {
            const std::uint32_t bits = bits_of(query[thread].at[axis]);
            return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
        };
        const auto back = [](std::uint32_t bits) {
            return std::bit_cast<float>(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
        };
        low[axis] = back(team.least(rising)), high[axis] = back(team.greatest(rising));
        centre[axis] = 0.5f * low[axis] + 0.5f * high[axis];
    }

    float reach = infinity;  // the greatest of the squared distances so far
    std::int64_t nodes = 0, looks = 0, leaves = 0;
    int top = 0;
    typename Team::template Local<float> to_group(team), to_centre(team);
    /// Lets those boxes of a level wait that the group may have to visit, the one nearest to its centre on top.
    const auto look_into = [&](int level, std::int32_t first, std::int32_t boxes) {
        const TreeBox* const at =
            batch.boxes[level] + batch.point_rows.first_block(shape, points_of_level(level)) + first;
        ++nodes;
        team.each([&](int thread) {
            to_group[thread] = to_centre[thread] = infinity;
            if (thread >= boxes) return;
            const TreeBox box = at[thread];
            to_group[thread] = squared_between(box.low, box.high, low, high);
            to_centre[thread] = squared_between(box.low, box.high, centre, centre);
        });
        const std::uint32_t near = team.those([&](int thread) { return thread < boxes && to_group[thread] <= reach; });
        if (near == 0) return;
        const std::uint32_t nearest = team.least([&](int thread) {
            return near >> thread & 1 ? (bits_of(to_centre[thread]) & ~31u) | static_cast<std::uint32_t>(thread) : ~0u;
        }) & 31u;
        const int last = top + std::popcount(near) - 1;
        team.each([&](int thread) {
            if (!(near >> thread & 1)) return;
            const auto before = [&](std::uint32_t among) { return std::popcount(among & ((1u << thread) - 1)); };
            const int slot =
                static_cast<std::uint32_t>(thread) == nearest ? last : top + before(near & ~(1u << nearest));
            waiting[slot] = {to_group[thread], level << place_bits | (first + thread)};
        });
        top = last + 1;
    };

    int root = 0;
    while (root + 1 < batch.levels && std::int64_t{points_of_level(root)} * node_boxes < count) ++root;
    const auto boxes_of = [&](int level) { return (count + points_of_level(level) - 1) / points_of_level(level); };
    look_into(root, 0, boxes_of(root));
    while (top > 0) {
        const Waiting next = waiting[--top];
        team.each([](int) {});  // all have read it
        if (next.squared > reach) continue;
        const int level = next.place >> place_bits;
        const std::int32_t place = next.place & ((1 << place_bits) - 1);
        const TreeBox box = batch.boxes[level][batch.point_rows.first_block(shape, points_of_level(level)) + place];
        ++looks;
        if (team.those([&](int thread) { return query[thread].within(box); }) == 0) continue;
        if (level > 0) {
            const std::int32_t first = place * node_boxes, left = boxes_of(level - 1) - first;
            look_into(level - 1, first, left < node_boxes ? left : node_boxes);
            continue;
        }
        ++leaves;
        const std::int32_t first = place * leaf_points, left = count - first;
        const std::int32_t size = left < leaf_points ? left : leaf_points;
        const TreePoint* const point = batch.tree_points + first_point + first;
        team.each([&](int thread) {
            for (std::int32_t i = 0; i < size; ++i) query[thread].compare(point[i]);
        });
        reach = std::bit_cast<float>(team.greatest([&](int thread) { return bits_of(query[thread].squared); }));
    }
    team.each([&](int thread) {
        const TreeQuery& mine = query[thread];
        if (mine.row >= 0) batch.distance[mine.row] = sqrtf(mine.squared), batch.index[mine.row] = mine.index;
        if (thread == 0 && batch.visits) {
            std::int64_t* const counts = batch.visits + 3 * std::int64_t{group};
            counts[0] = nodes, counts[1] = looks, counts[2] = leaves;
        }
    });
}

}  // namespace nepa3d::cuda
