/// First hits of rays on the meshes of a batch, as TriangleBvh::first_hits of csrc/bvh.hpp.
#pragma once

#include <cstdint>
#include <limits>

#include "bvh.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "simd/ray.hpp"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct FirstHits {
    Bvh bvh;
    const Vec3 *origins, *directions;
    Ragged ray_rows;
    float* t;            ///< out, by ray; infinity on a miss
    std::int64_t* face;  ///< out, by ray: counted from the shape's first; -1 on a miss
    Vec3* barycentric;   ///< out, by ray: weights of the corners; 0 on a miss
};

/// A ray and its best hit so far.
struct RayQuery {
    one_lane::Ray ray;
    float t = std::numeric_limits<float>::infinity();
    std::int32_t face = -1;
    float u = 0, v = 0;

    NEPA3D_HD RayQuery(const Vec3& origin, const Vec3& direction) : ray(origin, direction) {}

    NEPA3D_HD float reach() const { return t; }

    NEPA3D_HD float to_box(const float* low, const float* high) const {
        one_lane::Interval<float> within(t);
        for (int axis = 0; axis < 3; ++axis) {
            const bool backwards = ray.backwards(axis);
            within.clip(ray, axis, backwards ? high[axis] : low[axis], backwards ? low[axis] : high[axis]);
        }
        return within.near <= within.far ? within.near : std::numeric_limits<float>::infinity();
    }

    NEPA3D_HD void visit(const Triangle& triangle) {
        float along_x[3], along_y[3], along_z[3];
        for (int i = 0; i < 3; ++i) {
            along_x[i] = one_lane::pick(triangle.corner[i], ray.kx);
            along_y[i] = one_lane::pick(triangle.corner[i], ray.ky);
            along_z[i] = one_lane::pick(triangle.corner[i], ray.kz);
        }
        one_lane::Sheared<float> seen(ray, along_x, along_y, along_z);
        if (seen.a == 0 || seen.b == 0 || seen.c == 0) {
            float exact[3];
            one_lane::edges_in_double(seen.x, seen.y, exact);
            seen.a = exact[0], seen.b = exact[1], seen.c = exact[2];
        }
        if ((seen.a < 0 || seen.b < 0 || seen.c < 0) && (seen.a > 0 || seen.b > 0 || seen.c > 0)) return;
        const float determinant = seen.a + seen.b + seen.c;
        if (!(determinant < 0 || determinant > 0)) return;
        const float crossed = seen.t(ray, determinant);
        if (!(crossed >= 0 && crossed <= t)) return;
        const float at = one_lane::within_own_box(ray, crossed, triangle.corner);
        if (at < t || (at == t && triangle.face < face))
            t = at, face = triangle.face, u = seen.b / determinant, v = seen.c / determinant;
    }
};

NEPA3D_HD inline void first_hit(const FirstHits& batch, std::int32_t row) {
    const Vec3 direction = batch.directions[row];
    RayQuery query(batch.origins[row], direction);
    if (direction.x != 0 || direction.y != 0 || direction.z != 0)
        traverse(batch.bvh, batch.bvh.roots[batch.ray_rows.shape_of(row)], query);
    batch.t[row] = query.t;
    batch.face[row] = query.face;
    batch.barycentric[row] = {query.face < 0 ? 0 : 1 - query.u - query.v, query.u, query.v};
}

}  // namespace nepa3d::cuda
