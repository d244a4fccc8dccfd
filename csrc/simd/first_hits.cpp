#include <bit>
#include <cstdint>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float widen = 1 + 4 * std::numeric_limits<float>::epsilon();
constexpr int max_pending = 15 * max_bvh_depth + node_width;

/// A ray sheared so that it runs along +z from the origin (Woop, Benthin, Wald: Watertight Ray/Triangle
/// Intersection, JCGT 2(1), 2013), and the best hit so far. The direction must not be zero.
struct Ray {
    float origin[3], inverse[3];
    int kx, ky, kz;
    float sx, sy, sz;
    RayHit best{infinity, -1, 0, 0};

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
        if (direction[kz] < 0) {
            const int swapped = kx;
            kx = ky, ky = swapped;
        }
        sx = direction[kx] / direction[kz];
        sy = direction[ky] / direction[kz];
        sz = 1 / direction[kz];
    }

    /// Which boxes are met up to the best hit, as bits, and where they are entered. The exit is widened against
    /// rounding (Ize: Robust BVH Ray Traversal, JCGT 2(2), 2013); max and min drop the NaN of a ray that runs in a
    /// box's face.
    NEPA3D_INLINE unsigned enter(const Boxes& boxes, float* at) const {
        Float near = all(0.0f), far = all(best.t);
        for (int axis = 0; axis < 3; ++axis) {
            const bool backwards = inverse[axis] < 0;
            const float* const first = backwards ? boxes.high[axis] : boxes.low[axis];
            const float* const second = backwards ? boxes.low[axis] : boxes.high[axis];
            near = max((load(first) - all(origin[axis])) * all(inverse[axis]), near);
            far = min((load(second) - all(origin[axis])) * all(inverse[axis]) * all(widen), far);
        }
        store(at, near);
        return bits((near <= far) & (near < all(infinity)));
    }

    NEPA3D_INLINE void visit(const TriangleLeaf& leaf) {
        Float x[3], y[3], z[3];
        for (int corner = 0; corner < 3; ++corner) {
            z[corner] = load(leaf.corner[corner][kz]) - all(origin[kz]);
            x[corner] = load(leaf.corner[corner][kx]) - all(origin[kx]) - all(sx) * z[corner];
            y[corner] = load(leaf.corner[corner][ky]) - all(origin[ky]) - all(sy) * z[corner];
        }
        const Float zero = all(0.0f);
        Float a = x[2] * y[1] - y[2] * x[1], b = x[0] * y[2] - y[0] * x[2], c = x[1] * y[0] - y[1] * x[0];
        if (any((a == zero) | (b == zero) | (c == zero))) edges_in_double(x, y, a, b, c);
        const Float determinant = a + b + c;
        const unsigned outside =
            bits((a < zero) | (b < zero) | (c < zero)) & bits((zero < a) | (zero < b) | (zero < c));
        const Mask solid = (determinant < zero) | (zero < determinant);
        if ((bits(solid) & ~outside) == 0) return;
        const Float t = all(sz) * (a * z[0] + b * z[1] + c * z[2]) / determinant;
        unsigned hit = bits(solid & (zero <= t) & (t <= all(best.t)) & (t < all(infinity))) & ~outside;
        if (hit == 0) return;

        alignas(64) float ts[lanes], bs[lanes], cs[lanes], determinants[lanes];
        store(ts, t), store(bs, b), store(cs, c), store(determinants, determinant);
        for (; hit != 0; hit &= hit - 1) {
            const int lane = std::countr_zero(hit);
            if (ts[lane] < best.t || (ts[lane] == best.t && leaf.face[lane] < best.face))
                best = {ts[lane], leaf.face[lane], bs[lane] / determinants[lane], cs[lane] / determinants[lane]};
        }
    }

private:
    /// Where a ray passes an edge to within float32, float64 decides, so that faces on both sides agree.
    static void edges_in_double(const Float* x, const Float* y, Float& a, Float& b, Float& c) {
        alignas(64) float xs[3][lanes], ys[3][lanes], edge[3][lanes];
        for (int corner = 0; corner < 3; ++corner) store(xs[corner], x[corner]), store(ys[corner], y[corner]);
        store(edge[0], a), store(edge[1], b), store(edge[2], c);
        for (int lane = 0; lane < lanes; ++lane) {
            if (edge[0][lane] != 0 && edge[1][lane] != 0 && edge[2][lane] != 0) continue;
            for (int i = 0; i < 3; ++i) {
                const int p = (i + 2) % 3, q = (i + 1) % 3;
                edge[i][lane] = static_cast<float>(double(xs[p][lane]) * double(ys[q][lane]) -
                                                   double(ys[p][lane]) * double(xs[q][lane]));
            }
        }
        a = load(edge[0]), b = load(edge[1]), c = load(edge[2]);
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
        Ray ray(origins[i], direction);
        int top = 0;
        stack[top++] = {0, 0};
        while (top > 0) {
            const Pending here = stack[--top];
            if (here.at > ray.best.t) continue;
            if (here.child < 0) {
                ray.visit(bvh.leaves[~here.child]);
                continue;
            }
            const BvhNode& node = bvh.nodes[here.child];
            alignas(64) float at[node_width];
            const int first = top;
            for (unsigned met = ray.enter(node.boxes, at); met != 0; met &= met - 1) {
                const int child = std::countr_zero(met);
                int place = top++;
                for (; place > first && stack[place - 1].at < at[child]; --place) stack[place] = stack[place - 1];
                stack[place] = {at[child], node.child[child]};
            }
        }
        found[i] = ray.best;
    }
}

}  // namespace nepa3d::NEPA3D_ISA
