/// A binary bounding volume hierarchy over the triangles of each mesh of a batch, and the way through it.
#pragma once

#include <cstdint>
#include <limits>

#include "portable.cuh"
#include "ragged.cuh"
#include "simd/scalar.hpp"
#include "vec3.hpp"

namespace nepa3d::cuda {

/// Two boxes, and where they lead: a node, or a triangle stored as its complement.
struct alignas(16) Node {
    float low[2][3], high[2][3];
    std::int32_t child[2];
    std::int32_t unused[2];
};

struct alignas(16) Triangle {
    float corner[3][3];
    std::int32_t face;  ///< counted from its shape's first
    std::int32_t unused[2];
};

/// The trees of a batch; a shape of F triangles has F of them and F - 1 nodes, where its faces begin.
struct Bvh {
    Node* nodes;          ///< (faces,)
    Triangle* triangles;  ///< (faces,), along each shape's Morton curve
    std::int32_t* roots;  ///< (shapes,), as a Node's child; no_root where a shape has no faces
};

constexpr std::int32_t no_root = std::numeric_limits<std::int32_t>::min();
constexpr int max_depth = 62;  ///< bits that tell two triangles of a shape apart: 30 of the code, 32 of the place

/// Goes down a tree, the nearer child first, up to where the query's answer cannot change any more.
///
/// Query: `float to_box(const float* low, const float* high)` says how far a box is, infinity if nothing in it can
/// count; `float reach()` beyond which nothing counts any more; `void visit(const Triangle&)`.
template <class Query>
NEPA3D_HD void traverse(const Bvh& bvh, std::int32_t root, Query& query) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    if (root == no_root) return;
    float far_away[max_depth + 1];
    std::int32_t waiting[max_depth + 1];
    int top = 0;
    for (std::int32_t here = root;;) {
        if (here >= 0) {
            const Node& node = bvh.nodes[here];
            const float to_left = query.to_box(node.low[0], node.high[0]);
            const float to_right = query.to_box(node.low[1], node.high[1]);
            const int nearer = to_right < to_left ? 1 : 0;
            const float near = nearer ? to_right : to_left, far = nearer ? to_left : to_right;
            if (near < infinity) {
                if (far < infinity) far_away[top] = far, waiting[top] = node.child[1 - nearer], ++top;
                here = node.child[nearer];
                continue;
            }
        } else {
            query.visit(bvh.triangles[~here]);
        }
        do {
            if (top == 0) return;
            --top;
        } while (far_away[top] > query.reach());
        here = waiting[top];
    }
}

}  // namespace nepa3d::cuda
