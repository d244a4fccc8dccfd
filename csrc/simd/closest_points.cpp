#include <bit>
#include <cstdint>
#include <limits>

#include "closest_on_triangle.hpp"
#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 15 * max_bvh_depth + node_width;

struct Query {
    float at[3];
    float best = infinity;  // squared distance
    std::int32_t face = 0;
    float offset[3] = {0, 0, 0};  // from the query to the nearest point

    NEPA3D_INLINE Vector<Float> from_query(const float* x, const float* y, const float* z) const {
        return Vector<Float>{load(x), load(y), load(z)} - Vector<Float>{all(at[0]), all(at[1]), all(at[2])};
    }

    NEPA3D_INLINE Float to_boxes(const Boxes& boxes) const {
        const Float zero = all(0.0f);
        return squared_to_box(
            from_query(boxes.low[0], boxes.low[1], boxes.low[2]),
            Vector<Float>{zero, zero, zero} - from_query(boxes.high[0], boxes.high[1], boxes.high[2]));
    }

    /// Of equally near faces the lowest. No face counts as nearer than its own box: then no box around it is left out
    /// before it, and the answer is the same for every tree over the triangles.
    NEPA3D_INLINE void visit(const TriangleLeaf& leaf) {
        Vector<Float> corner[3];
        for (int i = 0; i < 3; ++i) corner[i] = from_query(leaf.corner[i][0], leaf.corner[i][1], leaf.corner[i][2]);
        const Closest<Float> closest(corner[0], corner[1], corner[2]);
        unsigned doubtful = bits(closest.doubtful()), near = bits(closest.squared <= all(best)) | doubtful;
        if (near == 0) return;
        const Float to_own_box = squared_to_box(corner[0], corner[1], corner[2]);
        const unsigned reachable = bits(to_own_box <= all(best));
        doubtful &= reachable, near &= reachable;
        if (near == 0) return;
        alignas(64) float squared[lanes], x[lanes], y[lanes], z[lanes], box[lanes];
        store(squared, closest.squared), store(box, to_own_box);
        store(x, closest.point.x), store(y, closest.point.y), store(z, closest.point.z);
        for (; doubtful != 0; doubtful &= doubtful - 1) {
            const int lane = std::countr_zero(doubtful);
            Vector<double> exact[3];
            for (int i = 0; i < 3; ++i)
                exact[i] = Vector<double>{leaf.corner[i][0][lane], leaf.corner[i][1][lane], leaf.corner[i][2][lane]} -
                           Vector<double>{at[0], at[1], at[2]};
            const Closest<double> found(exact[0], exact[1], exact[2]);
            squared[lane] = static_cast<float>(found.squared);
            x[lane] = static_cast<float>(found.point.x);
            y[lane] = static_cast<float>(found.point.y);
            z[lane] = static_cast<float>(found.point.z);
        }
        for (; near != 0; near &= near - 1) {
            const int lane = std::countr_zero(near);
            const float distance = max(box[lane], squared[lane]);
            if (distance > best || (distance == best && leaf.face[lane] >= face)) continue;
            best = distance;
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
