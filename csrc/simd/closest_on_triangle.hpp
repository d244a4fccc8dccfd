/// The point of a triangle nearest to the origin, for lanes of triangles or one: what both closest_points kernels do.
#pragma once

#include <limits>

#include "scalar.hpp"

namespace nepa3d::NEPA3D_ISA {

template <class T>
struct Vector {
    T x, y, z;
};
template <class T>
NEPA3D_INLINE Vector<T> operator-(Vector<T> a, Vector<T> b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <class T>
NEPA3D_INLINE Vector<T> operator+(Vector<T> a, Vector<T> b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <class T>
NEPA3D_INLINE Vector<T> operator*(T s, Vector<T> a) {
    return {s * a.x, s * a.y, s * a.z};
}
template <class T>
NEPA3D_INLINE T dot(Vector<T> a, Vector<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class T>
NEPA3D_INLINE Vector<T> cross(Vector<T> a, Vector<T> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class T, class M>
NEPA3D_INLINE Vector<T> select(M m, Vector<T> yes, Vector<T> no) {
    return {select(m, yes.x, no.x), select(m, yes.y, no.y), select(m, yes.z, no.z)};
}

/// The point of start + [0, 1] * along nearest to the origin; `length2` is along's squared length.
template <class T>
NEPA3D_INLINE Vector<T> closest_on_segment(Vector<T> start, Vector<T> along, T length2) {
    const T zero = constant<T>(0), one = constant<T>(1);
    const T s = min(max((zero - dot(start, along)) / length2, zero), one);  // NaN becomes 0: no length
    return start + s * along;
}

/// Squared distance from the origin to a box from `low` to `high`, see `narrow`. A box within another is at least as far,
/// rounding included.
template <class T>
NEPA3D_INLINE T squared_to_box(Vector<T> low, Vector<T> minus_high) {
    const T zero = constant<T>(0);
    const Vector<T> outside{max(max(low.x, minus_high.x), zero), max(max(low.y, minus_high.y), zero),
                            max(max(low.z, minus_high.z), zero)};
    return dot(outside, outside) * constant<T>(narrow);
}

/// The same to the box of a triangle.
template <class T>
NEPA3D_INLINE T squared_to_box(Vector<T> a, Vector<T> b, Vector<T> c) {
    const Vector<T> high{max(max(a.x, b.x), c.x), max(max(a.y, b.y), c.y), max(max(a.z, b.z), c.z)};
    const T zero = constant<T>(0);
    return squared_to_box(Vector<T>{min(min(a.x, b.x), c.x), min(min(a.y, b.y), c.y), min(min(a.z, b.z), c.z)},
                          Vector<T>{zero, zero, zero} - high);
}

/// The points of triangles nearest to the origin. Every candidate is a convex combination of the corners, so rounding
/// can make the answer too far, but hardly too near.
template <class T>
struct Closest {
    Vector<T> point;
    T squared;
    T u, v, w;    ///< barycentric weights of b, c, a where the origin projects, times the normal's squared length
    T rounding2;  ///< the square of what these three may be off, in units of epsilon squared
    T area2, longest4;  ///< squared length of the normal; fourth power of the longer of ab and ac

    NEPA3D_INLINE Closest(Vector<T> a, Vector<T> b, Vector<T> c) {
        const Vector<T> ab = b - a, ac = c - a, bc = c - b;
        const T zero = constant<T>(0), ab2 = dot(ab, ab), ac2 = dot(ac, ac);
        point = closest_on_segment(a, ab, ab2);
        squared = dot(point, point);
        consider(closest_on_segment(a, ac, ac2), squared <= squared);
        consider(closest_on_segment(b, bc, dot(bc, bc)), squared <= squared);
        const Vector<T> normal = cross(ab, ac);
        area2 = dot(normal, normal);
        v = dot(cross(a, ab), normal);
        u = dot(cross(ac, a), normal);
        w = area2 - u - v;
        const T longest2 = max(ab2, ac2);
        longest4 = longest2 * longest2;
        rounding2 = longest4 * longest2 * dot(a, a);
        const auto inside = (zero < area2) & (zero <= u) & (zero <= v) & (zero <= w);
        if (any(inside)) consider(a + (u / area2) * ab + (v / area2) * ac, inside);
    }

    /// Where float64 must decide: a needle's weights can be rounding alone, and then its inside is lost, or found in the
    /// wrong place.
    NEPA3D_INLINE auto doubtful() const {
        constexpr float epsilon = 16 * std::numeric_limits<float>::epsilon();
        const T zero = constant<T>(0), slack = constant<T>(epsilon * epsilon) * rounding2;
        const auto in_u = u * u <= slack, in_v = v * v <= slack, in_w = w * w <= slack;
        const auto maybe_inside = (in_u | (zero < u)) & (in_v | (zero < v)) & (in_w | (zero < w));
        return maybe_inside & (in_u | in_v | in_w | (constant<T>(16) * area2 <= longest4));
    }

private:
    template <class M>
    NEPA3D_INLINE void consider(Vector<T> candidate, M allowed) {
        const T distance = dot(candidate, candidate);
        const auto nearer = allowed & (distance < squared);
        point = select(nearer, candidate, point);
        squared = select(nearer, distance, squared);
    }
};

}  // namespace nepa3d::NEPA3D_ISA
