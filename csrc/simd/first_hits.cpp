#include <bit>
#include <cstdint>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"
#include "ray.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 15 * max_bvh_depth + node_width;

/// The best hit so far.
struct Query {
    Ray ray;
    RayHit best{infinity, -1, 0, 0};

    NEPA3D_INLINE Query(const Vec3& from, const Vec3& along) : ray(from, along) {}

    /// Which boxes are met up to the best hit, as bits, and where they are entered.
    NEPA3D_INLINE unsigned enter(const Boxes& boxes, float* at) const {
        Interval<Float> within(best.t);
        for (int axis = 0; axis < 3; ++axis) {
            const bool backwards = ray.backwards(axis);
            within.clip(ray, axis, load(backwards ? boxes.high[axis] : boxes.low[axis]),
                        load(backwards ? boxes.low[axis] : boxes.high[axis]));
        }
        store(at, within.near);
        return bits((within.near <= within.far) & (within.near < all(infinity)));
    }

    NEPA3D_INLINE void visit(const TriangleLeaf& leaf) {
        Float along_x[3], along_y[3], along_z[3];
        for (int corner = 0; corner < 3; ++corner) {
            along_x[corner] = load(leaf.corner[corner][ray.kx]);
            along_y[corner] = load(leaf.corner[corner][ray.ky]);
            along_z[corner] = load(leaf.corner[corner][ray.kz]);
        }
        Sheared<Float> seen(ray, along_x, along_y, along_z);
        const Float zero = all(0.0f);
        if (any((seen.a == zero) | (seen.b == zero) | (seen.c == zero))) decide_in_double(seen);
        const Float determinant = seen.a + seen.b + seen.c;
        const unsigned outside = bits((seen.a < zero) | (seen.b < zero) | (seen.c < zero)) &
                                 bits((zero < seen.a) | (zero < seen.b) | (zero < seen.c));
        const Mask solid = (determinant < zero) | (zero < determinant);
        if ((bits(solid) & ~outside) == 0) return;
        const Float t = seen.t(ray, determinant);
        unsigned hit = bits(solid & (zero <= t) & (t <= all(best.t)) & (t < all(infinity))) & ~outside;
        if (hit == 0) return;

        alignas(64) float ts[lanes], bs[lanes], cs[lanes], determinants[lanes];
        store(ts, t), store(bs, seen.b), store(cs, seen.c), store(determinants, determinant);
        for (; hit != 0; hit &= hit - 1) {
            const int lane = std::countr_zero(hit);
            float corner[3][3];
            for (int i = 0; i < 3; ++i)
                for (int axis = 0; axis < 3; ++axis) corner[i][axis] = leaf.corner[i][axis][lane];
            const float at = within_own_box(ray, ts[lane], corner);
            if (at < best.t || (at == best.t && leaf.face[lane] < best.face))
                best = {at, leaf.face[lane], bs[lane] / determinants[lane], cs[lane] / determinants[lane]};
        }
    }

private:
    static void decide_in_double(Sheared<Float>& seen) {
        alignas(64) float x[3][lanes], y[3][lanes], edge[3][lanes];
        for (int corner = 0; corner < 3; ++corner) store(x[corner], seen.x[corner]), store(y[corner], seen.y[corner]);
        store(edge[0], seen.a), store(edge[1], seen.b), store(edge[2], seen.c);
        for (int lane = 0; lane < lanes; ++lane) {
            if (edge[0][lane] != 0 && edge[1][lane] != 0 && edge[2][lane] != 0) continue;
            const float xs[3] = {x[0][lane], x[1][lane], x[2][lane]}, ys[3] = {y[0][lane], y[1][lane], y[2][lane]};
            float exact[3];
            edges_in_double(xs, ys, exact);
            for (int i = 0; i < 3; ++i) edge[i][lane] = exact[i];
        }
        seen.a = load(edge[0]), seen.b = load(edge[1]), seen.c = load(edge[2]);
    }
};

}  // namespace

void first_hits(const BvhView& bvh, const Vec3* origins, const Vec3* directions, std::size_t count, RayHit* found) {
    struct Pending {
        float at;
        std::int32_t child;
    };
    Pending stack[max_pending];
    for (std::size_t i = 0; i < count; ++i) {
        const Vec3& direction = directions[i];
        if (direction.x == 0 && direction.y == 0 && direction.z == 0) {
            found[i] = {infinity, -1, 0, 0};
            continue;
        }
        Query query(origins[i], direction);
        int top = 0;
        stack[top++] = {0, 0};
        while (top > 0) {
            const Pending here = stack[--top];
            if (here.at > query.best.t) continue;
            if (here.child < 0) {
                query.visit(bvh.leaves[~here.child]);
                continue;
            }
            const BvhNode& node = bvh.nodes[here.child];
            alignas(64) float at[node_width];
            const int first = top;
            for (unsigned met = query.enter(node.boxes, at); met != 0; met &= met - 1) {
                const int child = std::countr_zero(met);
                int place = top++;
                for (; place > first && stack[place - 1].at < at[child]; --place) stack[place] = stack[place - 1];
                stack[place] = {at[child], node.child[child]};
            }
        }
        found[i] = query.best;
    }
}

}  // namespace nepa3d::NEPA3D_ISA
