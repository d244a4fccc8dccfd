/// Predicates of one triangle: watertight ray intersection and nearest point.
#pragma once

#include <cmath>
#include <limits>

#include "vec3.hpp"

namespace nepa3d {

/// A ray sheared so that it runs along +z from the origin (Woop, Benthin, Wald: Watertight Ray/Triangle
/// Intersection, JCGT 2(1), 2013). The direction must not be zero.
struct ShearedRay {
    Vec3 origin;
    int kx, ky, kz;
    float sx, sy, sz;

    ShearedRay(Vec3 from, Vec3 direction) : origin(from) {
        const float ax = std::abs(direction.x), ay = std::abs(direction.y), az = std::abs(direction.z);
        kz = ax > ay ? (ax > az ? 0 : 2) : (ay > az ? 1 : 2);
        kx = (kz + 1) % 3;
        ky = (kx + 1) % 3;
        if (direction[kz] < 0) std::swap(kx, ky);
        sx = direction[kx] / direction[kz];
        sy = direction[ky] / direction[kz];
        sz = 1 / direction[kz];
    }

    /// True if the line meets the triangle; then `t` is the signed parameter and u, v the weights of b and c.
    bool intersect(Vec3 a, Vec3 b, Vec3 c, float& t, float& u, float& v) const {
        a = a - origin, b = b - origin, c = c - origin;
        const float ax = a[kx] - sx * a[kz], ay = a[ky] - sy * a[kz];
        const float bx = b[kx] - sx * b[kz], by = b[ky] - sy * b[kz];
        const float cx = c[kx] - sx * c[kz], cy = c[ky] - sy * c[kz];
        float wa = cx * by - cy * bx, wb = ax * cy - ay * cx, wc = bx * ay - by * ax;
        if (wa == 0 || wb == 0 || wc == 0) {  // on an edge in float32: decide in float64
            wa = edge(cx, by, cy, bx), wb = edge(ax, cy, ay, cx), wc = edge(bx, ay, by, ax);
        }
        if ((wa < 0 || wb < 0 || wc < 0) && (wa > 0 || wb > 0 || wc > 0)) return false;
        const float determinant = wa + wb + wc;
        if (determinant == 0) return false;
        t = sz * (wa * a[kz] + wb * b[kz] + wc * c[kz]) / determinant;
        u = wb / determinant;
        v = wc / determinant;
        return std::isfinite(t);
    }

private:
    static float edge(float p, float q, float r, float s) {
        return static_cast<float>(double(p) * double(q) - double(r) * double(s));
    }
};

inline Vec3 closest_on_segment(Vec3 start, Vec3 along) {
    const float length2 = dot(along, along);
    if (!(length2 > 0)) return start;
    return start + std::clamp(-dot(start, along) / length2, 0.0f, 1.0f) * along;
}

/// The point of triangle (a, b, c) nearest to the origin. Every candidate is a convex combination of the corners,
/// so a sliver can make the answer a little too far, never too near.
inline Vec3 closest_to_origin(Vec3 a, Vec3 b, Vec3 c) {
    const Vec3 ab = b - a, ac = c - a;
    Vec3 best = closest_on_segment(a, ab);
    float best2 = dot(best, best);
    const auto consider = [&](Vec3 candidate) {
        const float squared = dot(candidate, candidate);
        if (squared < best2) best = candidate, best2 = squared;
    };
    consider(closest_on_segment(a, ac));
    consider(closest_on_segment(b, c - b));
    const Vec3 normal = cross(ab, ac);
    const float area2 = dot(normal, normal);
    const float v = dot(cross(a, ab), normal), u = dot(cross(ac, a), normal);
    if (area2 > 0 && u >= 0 && v >= 0 && u + v <= area2)
        consider(a + (u / area2) * ab + (v / area2) * ac);
    return best;
}

}  // namespace nepa3d
