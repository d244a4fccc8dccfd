#include <bit>
#include <cstdint>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 15 * max_bvh_depth + node_width;

// The same arithmetic serves sixteen lanes and, where float32 cannot tell, one double.
NEPA3D_INLINE double select(bool m, double yes, double no) { return m ? yes : no; }
NEPA3D_INLINE double min(double a, double b) { return a < b ? a : b; }
NEPA3D_INLINE double max(double a, double b) { return a > b ? a : b; }
NEPA3D_INLINE bool any(bool m) { return m; }

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
NEPA3D_INLINE Vector<T> closest_on_segment(Vector<T> start, Vector<T> along, T length2, T zero, T one) {
    const T s = min(max((zero - dot(start, along)) / length2, zero), one);  // NaN becomes 0: no length
    return start + s * along;
}

/// The points of triangles nearest to the origin. Every candidate is a convex combination of the corners, so rounding
/// can make the answer too far, but never too near.
template <class T>
struct Closest {
    Vector<T> point;
    T squared;
    T u, v, w;    ///< barycentric weights of b, c, a where the origin projects, times the normal's squared length
    T rounding2;  ///< the square of what these three may be off, in units of epsilon squared
    T area2, longest4;  ///< squared length of the normal; fourth power of the longer of ab and ac

    NEPA3D_INLINE Closest(Vector<T> a, Vector<T> b, Vector<T> c, T zero, T one) {
        const Vector<T> ab = b - a, ac = c - a, bc = c - b;
        const T ab2 = dot(ab, ab), ac2 = dot(ac, ac);
        point = closest_on_segment(a, ab, ab2, zero, one);
        squared = dot(point, point);
        consider(closest_on_segment(a, ac, ac2, zero, one), squared <= squared);
        consider(closest_on_segment(b, bc, dot(bc, bc), zero, one), squared <= squared);
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

private:
    template <class M>
    NEPA3D_INLINE void consider(Vector<T> candidate, M allowed) {
        const T distance = dot(candidate, candidate);
        const auto nearer = allowed & (distance < squared);
        point = select(nearer, candidate, point);
        squared = select(nearer, distance, squared);
    }
};

struct Query {
    float at[3];
    float best = infinity;  // squared distance
    std::int32_t face = 0;
    float offset[3] = {0, 0, 0};  // from the query to the nearest point

    NEPA3D_INLINE Float to_boxes(const Boxes& boxes) const {
        Float outside[3];
        for (int axis = 0; axis < 3; ++axis) {
            const Float below = load(boxes.low[axis]) - all(at[axis]), above = all(at[axis]) - load(boxes.high[axis]);
            outside[axis] = max(max(below, above), all(0.0f));
        }
        return outside[0] * outside[0] + outside[1] * outside[1] + outside[2] * outside[2];
    }

    /// Of equally near faces the lowest.
    NEPA3D_INLINE void visit(const TriangleLeaf& leaf) {
        Vector<Float> corner[3];
        for (int i = 0; i < 3; ++i)
            corner[i] = Vector<Float>{load(leaf.corner[i][0]), load(leaf.corner[i][1]), load(leaf.corner[i][2])} -
                        Vector<Float>{all(at[0]), all(at[1]), all(at[2])};
        const Float zero = all(0.0f);
        const Closest<Float> closest(corner[0], corner[1], corner[2], zero, all(1.0f));

        // A needle's weights can be rounding alone: then its inside is lost, or found in the wrong place.
        constexpr float epsilon = 16 * std::numeric_limits<float>::epsilon();
        const Float slack = all(epsilon * epsilon) * closest.rounding2;
        const Mask u_doubtful = closest.u * closest.u <= slack, v_doubtful = closest.v * closest.v <= slack,
                   w_doubtful = closest.w * closest.w <= slack;
        const Mask maybe_inside =
            (u_doubtful | (zero < closest.u)) & (v_doubtful | (zero < closest.v)) & (w_doubtful | (zero < closest.w));
        const Mask nearer = closest.squared <= all(best);
        unsigned doubtful = bits(maybe_inside & (u_doubtful | v_doubtful | w_doubtful |
                                                 (nearer & (all(16.0f) * closest.area2 <= closest.longest4))));
        unsigned near = bits(nearer) | doubtful;
        if (near == 0) return;
        alignas(64) float squared[lanes], x[lanes], y[lanes], z[lanes];
        store(squared, closest.squared);
        store(x, closest.point.x), store(y, closest.point.y), store(z, closest.point.z);
        for (; doubtful != 0; doubtful &= doubtful - 1) {
            const int lane = std::countr_zero(doubtful);
            Vector<double> exact[3];
            for (int i = 0; i < 3; ++i)
                exact[i] = Vector<double>{leaf.corner[i][0][lane], leaf.corner[i][1][lane], leaf.corner[i][2][lane]} -
                           Vector<double>{at[0], at[1], at[2]};
            const Closest<double> found(exact[0], exact[1], exact[2], 0.0, 1.0);
            squared[lane] = static_cast<float>(found.squared);
            x[lane] = static_cast<float>(found.point.x);
            y[lane] = static_cast<float>(found.point.y);
            z[lane] = static_cast<float>(found.point.z);
        }
        for (; near != 0; near &= near - 1) {
            const int lane = std::countr_zero(near);
            if (squared[lane] > best || (squared[lane] == best && leaf.face[lane] > face)) continue;
            best = squared[lane];
            face = leaf.face[lane];
            offset[0] = x[lane], offset[1] = y[lane], offset[2] = z[lane];
        }
    }
};

}  // namespace

void closest_points(const BvhView& bvh, const Vec3* queries, const std::uint32_t* order, std::size_t count,
                    SurfacePoint* found) {
    struct Pending {
        float squared;
        std::int32_t child;
    };
    Pending stack[max_pending];
    for (std::size_t i = 0; i < count; ++i) {
        const Vec3& from = queries[order[i]];
        Query query{{from.x, from.y, from.z}};
        int top = 0;
        stack[top++] = {0, 0};
        while (top > 0) {
            const Pending here = stack[--top];
            if (here.squared > query.best) continue;
            if (here.child < 0) {
                query.visit(bvh.leaves[~here.child]);
                continue;
            }
            const BvhNode& node = bvh.nodes[here.child];
            const Float distance = query.to_boxes(node.boxes);
            alignas(64) float squared[node_width];
            store(squared, distance);
            const int first = top;
            int nearest_child = first;
            unsigned near = bits((distance <= all(query.best)) & (distance < all(infinity)));
            for (; near != 0; near &= near - 1) {
                const int child = std::countr_zero(near);
                stack[top] = {squared[child], node.child[child]};
                if (squared[child] < stack[nearest_child].squared) nearest_child = top;
                ++top;
            }
            if (top > first) {  // the nearest goes first; sorting the rest costs more than it saves
                const Pending last = stack[top - 1];
                stack[top - 1] = stack[nearest_child];
                stack[nearest_child] = last;
            }
        }
        const Vec3 point{from.x + query.offset[0], from.y + query.offset[1], from.z + query.offset[2]};
        found[order[i]] = {__builtin_sqrtf(query.best), query.face, point};
    }
}

}  // namespace nepa3d::NEPA3D_ISA
