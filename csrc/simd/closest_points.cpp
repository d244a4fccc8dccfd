#include <bit>
#include <cstdint>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 15 * max_bvh_depth + node_width;

struct Vector {
    Float x, y, z;
};
NEPA3D_INLINE Vector operator-(Vector a, Vector b) { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
NEPA3D_INLINE Vector operator+(Vector a, Vector b) { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
NEPA3D_INLINE Vector operator*(Float s, Vector a) { return {s * a.x, s * a.y, s * a.z}; }
NEPA3D_INLINE Float dot(Vector a, Vector b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
NEPA3D_INLINE Vector cross(Vector a, Vector b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
NEPA3D_INLINE Vector select(Mask m, Vector yes, Vector no) {
    return {select(m, yes.x, no.x), select(m, yes.y, no.y), select(m, yes.z, no.z)};
}

/// The point of start + [0, 1] * along nearest to the origin.
NEPA3D_INLINE Vector closest_on_segment(Vector start, Vector along) {
    const Float zero = all(0.0f), length2 = dot(along, along);
    const Float s = min(max((zero - dot(start, along)) / length2, zero), all(1.0f));  // NaN becomes 0: no length
    return start + s * along;
}

struct Closest {
    Vector point;
    Float squared;

    NEPA3D_INLINE void consider(Vector candidate, Mask allowed) {
        const Float distance = dot(candidate, candidate);
        const Mask nearer = allowed & (distance < squared);
        point = select(nearer, candidate, point);
        squared = select(nearer, distance, squared);
    }
};

/// The points of sixteen triangles nearest to the origin. Every candidate is a convex combination of the corners, so a
/// sliver can make the answer a little too far, never too near.
NEPA3D_INLINE Closest closest_to_origin(Vector a, Vector b, Vector c) {
    const Vector ab = b - a, ac = c - a;
    const Float zero = all(0.0f);
    Closest best;
    best.point = closest_on_segment(a, ab);
    best.squared = dot(best.point, best.point);
    const Mask always = zero <= zero;
    best.consider(closest_on_segment(a, ac), always);
    best.consider(closest_on_segment(b, c - b), always);
    const Vector normal = cross(ab, ac);
    const Float area2 = dot(normal, normal), v = dot(cross(a, ab), normal), u = dot(cross(ac, a), normal);
    const Mask inside = (zero < area2) & (zero <= u) & (zero <= v) & (u + v <= area2);
    if (any(inside)) best.consider(a + (u / area2) * ab + (v / area2) * ac, inside);
    return best;
}

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
        Vector corner[3];
        for (int i = 0; i < 3; ++i)
            corner[i] = Vector{load(leaf.corner[i][0]), load(leaf.corner[i][1]), load(leaf.corner[i][2])} -
                        Vector{all(at[0]), all(at[1]), all(at[2])};
        const Closest closest = closest_to_origin(corner[0], corner[1], corner[2]);
        unsigned near = bits(closest.squared <= all(best));
        if (near == 0) return;
        alignas(64) float squared[lanes], x[lanes], y[lanes], z[lanes];
        store(squared, closest.squared);
        store(x, closest.point.x), store(y, closest.point.y), store(z, closest.point.z);
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
