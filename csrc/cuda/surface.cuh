/// Points on the surfaces of the meshes of a batch, as csrc/sampling.hpp draws them.
#pragma once

#include <cmath>
#include <cstdint>

#include "bvh_build.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "team.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct SurfaceSampling {
    const Vec3* vertices;
    Ragged vertex_rows;
    const Corners* faces;
    Ragged face_rows;
    const Vec3* uniforms;  ///< in [0, 1)
    Ragged sample_rows;
    double* cumulative;  ///< (faces,) scratch: twice the areas of a shape's faces up to each
    std::int32_t* last;  ///< (shapes,) scratch: a shape's last face with an area
    double* total;       ///< out, by shape: twice its area
    Vec3 *point, *normal;  ///< out, by sample
    std::int64_t* face;    ///< out, by sample: counted from the shape's first
};

struct Plane {
    Vec3d corner, edge1, edge2, normal;  ///< the normal's length is twice the area
};

NEPA3D_HD inline Plane plane_of(const SurfaceSampling& batch, std::int32_t shape, std::int32_t row) {
    const Corners face = batch.faces[row];
    const Vec3* const vertices = batch.vertices + batch.vertex_rows.begin(shape);
    const Vec3d a = to_double(vertices[face.a]);
    const Vec3d edge1 = to_double(vertices[face.b]) - a, edge2 = to_double(vertices[face.c]) - a;
    return {a, edge1, edge2, cross(edge1, edge2)};
}

NEPA3D_HD inline void measure_face(const SurfaceSampling& batch, std::int32_t row) {
    const Vec3d normal = plane_of(batch, batch.face_rows.shape_of(row), row).normal;
    batch.cumulative[row] = sqrt(dot(normal, normal));
}

constexpr int sum_threads = 256;

/// Sums the areas of one shape's faces, each to those before it: by one thread, since another order would round
/// differently. `tile` holds sum_threads numbers.
template <class Team>
NEPA3D_DEVICE void sum_areas(const Team& team, const SurfaceSampling& batch, std::int32_t shape, double* tile) {
    const std::int32_t begin = batch.face_rows.begin(shape), end = batch.face_rows.end(shape);
    struct Sum {
        double total;
        std::int32_t last;
    };
    typename Team::template Local<Sum> sum(team);
    team.each([&](int thread) { sum[thread] = {0, 0}; });
    for (std::int32_t from = begin; from < end; from += sum_threads) {
        const std::int32_t size = end - from < sum_threads ? end - from : sum_threads;
        team.each([&](int thread) {
            if (thread < size) tile[thread] = batch.cumulative[from + thread];
        });
        team.each([&](int thread) {
            if (thread != 0) return;
            Sum so_far = sum[0];
            for (std::int32_t i = 0; i < size; ++i) {
                if (tile[i] > 0) so_far.last = from - begin + i;
                tile[i] = so_far.total += tile[i];
            }
            sum[0] = so_far;
        });
        team.each([&](int thread) {
            if (thread < size) batch.cumulative[from + thread] = tile[thread];
        });
    }
    team.each([&](int thread) {
        if (thread == 0) batch.last[shape] = sum[0].last, batch.total[shape] = sum[0].total;
    });
}

/// One sample; none of a shape without area, whose total says so.
NEPA3D_HD inline void draw_sample(const SurfaceSampling& batch, std::int32_t row) {
    const std::int32_t shape = batch.sample_rows.shape_of(row), begin = batch.face_rows.begin(shape);
    if (!(batch.total[shape] > 0)) return;
    const Vec3d uniform = to_double(batch.uniforms[row]);
    const double target = uniform.x * batch.total[shape];
    std::int32_t low = 0, high = batch.last[shape];  // the first sum above the target, or the last face with an area
    while (low < high) {
        const std::int32_t middle = low + (high - low) / 2;
        if (batch.cumulative[begin + middle] > target) high = middle;
        else low = middle + 1;
    }
    const Plane plane = plane_of(batch, shape, begin + low);
    const double root = sqrt(uniform.y), z = uniform.z;
    batch.point[row] = to_float(plane.corner + (root * (1 - z)) * plane.edge1 + (root * z) * plane.edge2);
    batch.normal[row] = to_float((1 / sqrt(dot(plane.normal, plane.normal))) * plane.normal);
    batch.face[row] = low;
}

}  // namespace nepa3d::cuda
