#include <bit>
#include <cmath>
#include <limits>

#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int max_pending = 15 * 8 + 1;  // siblings wait on each of the levels of 2^31 points

/// Sixteen queries, their bounding box, and the nearest points so far.
struct Group {
    Float x, y, z;
    float low[3], high[3];
    Float best;  // squared distances
    Int index;
    float reach;  // the greatest of them

    NEPA3D_INLINE explicit Group(const float (*coordinate)[lanes])
        : x(load(coordinate[0])),
          y(load(coordinate[1])),
          z(load(coordinate[2])),
          best(all(infinity)),
          index(all(std::int32_t{0})),
          reach(infinity) {
        const Float axes[3] = {x, y, z};
        for (int axis = 0; axis < 3; ++axis) low[axis] = least(axes[axis]), high[axis] = greatest(axes[axis]);
    }

    NEPA3D_INLINE Float squared(Float dx, Float dy, Float dz) const { return dx * dx + dy * dy + dz * dz; }

    /// Of equally near points the lowest index: the first in the leaf, whose points are in the order of their indices.
    NEPA3D_INLINE void visit(const PointLeaf& leaf) {
        Float nearest = all(infinity);
        Int nearest_index = all(leaf.index[0]);
        for (int i = 0; i < node_width; ++i) {
            const Float distance = squared(all(leaf.x[i]) - x, all(leaf.y[i]) - y, all(leaf.z[i]) - z);
            const Mask nearer = distance < nearest;
            nearest = min(distance, nearest);
            nearest_index = select(nearer, all(leaf.index[i]), nearest_index);
        }
        index = select((nearest < best) | ((nearest == best) & (nearest_index < index)), nearest_index, index);
        best = min(nearest, best);
        reach = greatest(best);
    }

    /// From each query to one box of a node: is it within that query's best?
    NEPA3D_INLINE bool reaches(const Boxes& boxes, unsigned child) const {
        const Float zero = all(0.0f);
        const Float dx = max(max(all(boxes.low[0][child]) - x, x - all(boxes.high[0][child])), zero);
        const Float dy = max(max(all(boxes.low[1][child]) - y, y - all(boxes.high[1][child])), zero);
        const Float dz = max(max(all(boxes.low[2][child]) - z, z - all(boxes.high[2][child])), zero);
        return any(squared(dx, dy, dz) <= best);
    }

    /// From the box [from_low, from_high] to each box of a node.
    NEPA3D_INLINE Float to_boxes(const Boxes& boxes, const float* from_low, const float* from_high) const {
        Float outside[3];
        for (int axis = 0; axis < 3; ++axis) {
            const Float below = load(boxes.low[axis]) - all(from_high[axis]);
            const Float above = all(from_low[axis]) - load(boxes.high[axis]);
            outside[axis] = max(max(below, above), all(0.0f));
        }
        return squared(outside[0], outside[1], outside[2]);
    }
};

}  // namespace

/// Sixteen neighbours along the order go down the tree together: what one of them must visit, most of the others must
/// too, and no lane ever branches. A box is left out when its squared distance exceeds the best one. Summing squares in
/// the order of the leaves' distances keeps that bound below every distance in the box, rounding included.
void nearest(const KdTreeView& tree, const Vec3* queries, const std::uint32_t* order, std::size_t count,
             Nearest* found) {
    struct Pending {
        float squared;  // from the group's box
        std::int32_t level;
        std::uint32_t node;
    };
    Pending stack[max_pending];
    for (std::size_t begin = 0; begin < count; begin += lanes) {
        alignas(64) float coordinate[3][lanes];
        for (std::size_t lane = 0; lane < lanes; ++lane) {
            const std::size_t last = count - 1, at = begin + lane;
            const Vec3& query = queries[order[at < last ? at : last]];
            coordinate[0][lane] = query.x, coordinate[1][lane] = query.y, coordinate[2][lane] = query.z;
        }
        Group group(coordinate);
        float centre[3];
        for (int axis = 0; axis < 3; ++axis) centre[axis] = 0.5f * group.low[axis] + 0.5f * group.high[axis];

        int top = 0;
        stack[top++] = {0, tree.depth - 1, 0};
        while (top > 0) {
            const Pending here = stack[--top];
            if (here.squared > group.reach) continue;
            if (here.level + 1 < tree.depth &&
                !group.reaches(tree.levels[here.level + 1][here.node / node_width], here.node % node_width))
                continue;
            if (here.level < 0) {
                group.visit(tree.leaves[here.node]);
                continue;
            }
            const Boxes& boxes = tree.levels[here.level][here.node];
            const Float distance = group.to_boxes(boxes, group.low, group.high);
            alignas(64) float squared[node_width], from_centre[node_width];
            store(squared, distance);
            store(from_centre, group.to_boxes(boxes, centre, centre));
            float least_from_centre = infinity;
            const int first = top;
            int nearest_child = first;
            unsigned near = bits((distance <= all(group.reach)) & (distance < all(infinity)));
            for (; near != 0; near &= near - 1) {
                const auto child = static_cast<unsigned>(std::countr_zero(near));
                if (from_centre[child] < least_from_centre) {
                    least_from_centre = from_centre[child];
                    nearest_child = top;
                }
                stack[top++] = {squared[child], here.level - 1, here.node * node_width + child};
            }
            if (top > first) {  // the nearest goes first; sorting the rest costs more than it saves
                const Pending last = stack[top - 1];
                stack[top - 1] = stack[nearest_child];
                stack[nearest_child] = last;
            }
        }
        alignas(64) float distance[lanes];
        alignas(64) std::int32_t index[lanes];
        store(distance, square_root(group.best));
        store(index, group.index);
        for (std::size_t lane = 0; lane < lanes && begin + lane < count; ++lane)
            found[order[begin + lane]] = {distance[lane], index[lane]};
    }
}

}  // namespace nepa3d::NEPA3D_ISA
