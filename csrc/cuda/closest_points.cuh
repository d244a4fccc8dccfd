/// Nearest points of the meshes of a batch, as TriangleBvh::closest_points of csrc/bvh.hpp.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "bvh.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "simd/closest_on_triangle.hpp"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct ClosestPoints {
    Bvh bvh;
    const Vec3* queries;
    Ragged query_rows;
    float* distance;     ///< out, by query; infinity where the shape has no faces
    std::int64_t* face;  ///< out, by query: counted from the shape's first, of equally near ones the lowest
    Vec3* point;         ///< out, by query
};

/// A query and the nearest point so far, as its offset from the query.
struct PointQuery {
    using Offset = one_lane::Vector<float>;
    float at[3];
    float squared = std::numeric_limits<float>::infinity();
    std::int32_t face = 0;
    Offset offset{0, 0, 0};

    NEPA3D_HD explicit PointQuery(const Vec3& query) : at{query.x, query.y, query.z} {}

    NEPA3D_HD float reach() const { return squared; }

    NEPA3D_HD Offset from_query(const float* place) const {
        return Offset{place[0], place[1], place[2]} - Offset{at[0], at[1], at[2]};
    }

    NEPA3D_HD float to_box(const float* low, const float* high) const {
        const float to = one_lane::squared_to_box(from_query(low), Offset{0, 0, 0} - from_query(high));
        return to <= squared ? to : std::numeric_limits<float>::infinity();
    }

    NEPA3D_HD void visit(const Triangle& triangle) {
        const Offset a = from_query(triangle.corner[0]), b = from_query(triangle.corner[1]),
                     c = from_query(triangle.corner[2]);
        const float to_own_box = one_lane::squared_to_box(a, b, c);
        if (!(to_own_box <= squared)) return;
        const one_lane::Closest<float> closest(a, b, c);
        if (closest.doubtful()) {
            const one_lane::Closest<double> found(exactly(triangle.corner[0]), exactly(triangle.corner[1]),
                                                  exactly(triangle.corner[2]));
            consider(one_lane::max(to_own_box, static_cast<float>(found.squared)), triangle.face,
                     {static_cast<float>(found.point.x), static_cast<float>(found.point.y),
                      static_cast<float>(found.point.z)});
        } else {
            consider(one_lane::max(to_own_box, closest.squared), triangle.face, closest.point);
        }
    }

private:
    NEPA3D_HD one_lane::Vector<double> exactly(const float* place) const {
        return one_lane::Vector<double>{place[0], place[1], place[2]} - one_lane::Vector<double>{at[0], at[1], at[2]};
    }

    NEPA3D_HD void consider(float candidate, std::int32_t candidate_face, const Offset& candidate_offset) {
        if (candidate < squared || (candidate == squared && candidate_face < face))
            squared = candidate, face = candidate_face, offset = candidate_offset;
    }
};

NEPA3D_HD inline void closest_point(const ClosestPoints& batch, std::int32_t row) {
    const Vec3 at = batch.queries[row];
    PointQuery query(at);
    traverse(batch.bvh, batch.bvh.roots[batch.query_rows.shape_of(row)], query);
    batch.distance[row] = sqrtf(query.squared);
    batch.face[row] = query.face;
    batch.point[row] = {at.x + query.offset.x, at.y + query.offset.y, at.z + query.offset.z};
}

}  // namespace nepa3d::cuda
