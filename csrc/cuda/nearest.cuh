/// The nearest of a shape's points to each of its queries, by comparing with all of them.
#pragma once

#include <cmath>
#include <limits>

#include "portable.cuh"
#include "ragged.cuh"
#include "team.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct NearestBatch {
    const Vec3* points;
    Ragged point_rows;
    const Vec3* queries;
    Ragged query_rows;
    float* distance;      ///< out, by query; infinity where the shape has no points
    std::int64_t* index;  ///< out, by query: counted from the shape's first point, of equally near ones the lowest
};

constexpr int nearest_threads = 256;
constexpr int queries_per_thread = 4;  // each point that is fetched is compared with so many queries
constexpr int nearest_block_queries = nearest_threads * queries_per_thread;

/// One point of a tile, which a thread loads at once.
struct alignas(16) TilePoint {
    Vec3 at;
};

/// What a thread knows of one of its queries.
struct NearestSoFar {
    Vec3 query;
    float squared;
    std::int32_t index;

    NEPA3D_HD void compare(const TilePoint& point, std::int32_t candidate) {
        const Vec3 between = point.at - query;
        const float distance = dot(between, between);
        if (distance < squared) squared = distance, index = candidate;  // indices ascend
    }
};

/// The step of one block of nearest_threads threads; `tile` holds as many points.
template <class Team>
NEPA3D_DEVICE void nearest_block(const Team& team, const NearestBatch& batch, std::int32_t block, TilePoint* tile) {
    const std::int32_t shape = batch.query_rows.shape_of_block(block, nearest_block_queries);
    const std::int32_t block_of_shape = block - batch.query_rows.first_block(shape, nearest_block_queries);
    const std::int32_t begin = batch.query_rows.begin(shape) + block_of_shape * nearest_block_queries;
    const std::int32_t end = batch.query_rows.end(shape);
    if (begin >= end) return;
    const std::int32_t first_point = batch.point_rows.begin(shape);
    const std::int32_t points = batch.point_rows.end(shape) - first_point;

    struct Mine {
        NearestSoFar found[queries_per_thread];
    };
    typename Team::template Local<Mine> mine(team);
    team.each([&](int thread) {
        for (int i = 0; i < queries_per_thread; ++i) {
            const std::int32_t row = begin + i * nearest_threads + thread;
            mine[thread].found[i] = {batch.queries[row < end ? row : end - 1], std::numeric_limits<float>::infinity(),
                                     0};
        }
    });
    for (std::int32_t from = 0; from < points; from += nearest_threads) {
        team.each([&](int thread) {
            if (from + thread < points) tile[thread].at = batch.points[first_point + from + thread];
        });
        const std::int32_t count = points - from < nearest_threads ? points - from : nearest_threads;
        team.each([&](int thread) {
            for (std::int32_t k = 0; k < count; ++k) {
                const TilePoint point = tile[k];
                for (int i = 0; i < queries_per_thread; ++i) mine[thread].found[i].compare(point, from + k);
            }
        });
    }
    team.each([&](int thread) {
        for (int i = 0; i < queries_per_thread; ++i) {
            const std::int32_t row = begin + i * nearest_threads + thread;
            if (row >= end) break;
            batch.distance[row] = sqrtf(mine[thread].found[i].squared);
            batch.index[row] = mine[thread].found[i].index;
        }
    });
}

}  // namespace nepa3d::cuda
