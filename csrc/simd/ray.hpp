/// Rays against boxes and triangles, for lanes of them or one: what both first_hits kernels do.
#pragma once

#include <limits>

#include "../vec3.hpp"
#include "scalar.hpp"

namespace nepa3d::NEPA3D_ISA {

/// A ray sheared so that it runs along +z from the origin (Woop, Benthin, Wald: Watertight Ray/Triangle Intersection,
/// JCGT 2(1), 2013). The direction must not be zero.
struct Ray {
    float origin[3], inverse[3];
    int kx, ky, kz;
    float ox, oy, oz;  ///< the origin along these axes
    float sx, sy, sz;

    NEPA3D_INLINE Ray(const Vec3& from, const Vec3& along) : origin{from.x, from.y, from.z} {
        const float direction[3] = {along.x, along.y, along.z};
        float size[3];
        for (int axis = 0; axis < 3; ++axis) {
            inverse[axis] = 1 / direction[axis];
            size[axis] = direction[axis] < 0 ? -direction[axis] : direction[axis];
        }
        kz = size[0] > size[1] ? (size[0] > size[2] ? 0 : 2) : (size[1] > size[2] ? 1 : 2);
        kx = kz == 2 ? 0 : kz + 1;
        ky = kx == 2 ? 0 : kx + 1;
        const float forwards = pick(direction, kz);
        if (forwards < 0) {
            const int swapped = kx;
            kx = ky, ky = swapped;
        }
        ox = pick(origin, kx), oy = pick(origin, ky), oz = pick(origin, kz);
        sx = pick(direction, kx) / forwards;
        sy = pick(direction, ky) / forwards;
        sz = 1 / forwards;
    }

    NEPA3D_INLINE bool backwards(int axis) const { return inverse[axis] < 0; }
};

/// The part of a ray within boxes, of which `clip` takes one axis after the other. The entry is narrowed and the exit
/// widened against rounding (Ize: Robust BVH Ray Traversal, JCGT 2(2), 2013); max and min drop the NaN of a ray that runs
/// in a box's face. A box within another is entered no earlier and left no later, rounding included.
template <class T>
struct Interval {
    T near, far;

    NEPA3D_INLINE explicit Interval(float up_to) : near(constant<T>(0)), far(constant<T>(up_to)) {}

    /// `first` and `second` are the planes in the order in which the ray meets them.
    NEPA3D_INLINE void clip(const Ray& ray, int axis, T first, T second) {
        constexpr float widen = 1 + 4 * std::numeric_limits<float>::epsilon();
        const T origin = constant<T>(ray.origin[axis]), inverse = constant<T>(ray.inverse[axis]);
        near = max((first - origin) * inverse * constant<T>(narrow), near);
        far = min((second - origin) * inverse * constant<T>(widen), far);
    }
};

/// Where a ray passes an edge to within float32, float64 decides, so that faces on both sides agree.
NEPA3D_INLINE void edges_in_double(const float* x, const float* y, float* edge) {
    for (int i = 0; i < 3; ++i) {
        const int p = (i + 2) % 3, q = (i + 1) % 3;
        edge[i] = static_cast<float>(double(x[p]) * double(y[q]) - double(y[p]) * double(x[q]));
    }
}

/// Triangles in the frame of a ray, which crosses them where a, b, c have one sign: they are the weights of the corners
/// times `determinant`.
template <class T>
struct Sheared {
    T x[3], y[3], z[3];
    T a, b, c;

    /// Corner coordinates along the ray's axes kx, ky and kz.
    NEPA3D_INLINE Sheared(const Ray& ray, const T* along_x, const T* along_y, const T* along_z) {
        for (int corner = 0; corner < 3; ++corner) {
            z[corner] = along_z[corner] - constant<T>(ray.oz);
            x[corner] = along_x[corner] - constant<T>(ray.ox) - constant<T>(ray.sx) * z[corner];
            y[corner] = along_y[corner] - constant<T>(ray.oy) - constant<T>(ray.sy) * z[corner];
        }
        a = x[2] * y[1] - y[2] * x[1];
        b = x[0] * y[2] - y[0] * x[2];
        c = x[1] * y[0] - y[1] * x[0];
    }

    NEPA3D_INLINE T t(const Ray& ray, T determinant) const {
        return constant<T>(ray.sz) * (a * z[0] + b * z[1] + c * z[2]) / determinant;
    }
};

/// The hit at parameter t of a triangle counts where the ray enters the triangle's box, if it does so later, and not
/// at all if it misses the box: then no box around it is left out before it, and the answer is the same for every tree
/// over the triangles. Returns t, or infinity.
NEPA3D_INLINE float within_own_box(const Ray& ray, float t, const float (*corner)[3]) {
    Interval<float> own(std::numeric_limits<float>::infinity());
    for (int axis = 0; axis < 3; ++axis) {
        const float low = min(min(corner[0][axis], corner[1][axis]), corner[2][axis]);
        const float high = max(max(corner[0][axis], corner[1][axis]), corner[2][axis]);
        own.clip(ray, axis, ray.backwards(axis) ? high : low, ray.backwards(axis) ? low : high);
    }
    return own.near <= own.far ? max(t, own.near) : std::numeric_limits<float>::infinity();
}

}  // namespace nepa3d::NEPA3D_ISA
