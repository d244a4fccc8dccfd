/// Building the trees of bvh.cuh: faces sorted along each shape's Morton curve, and joined from there in one pass
/// (Apetrei: Fast and Simple Agglomerative LBVH Construction, 2014). Answers do not depend on the tree.
#pragma once

#include "bounds.cuh"
#include "bvh.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "row_sort.hpp"
#include "scratch.hpp"
#include "team.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

/// Three indices of vertices, counted from the shape's first.
struct Corners {
    std::int32_t a, b, c;
};

struct BvhBuild {
    const Vec3* vertices;
    Ragged vertex_rows;
    const Corners* faces;
    Ragged face_rows;
    Bvh bvh;

    // Scratch, see lay_out.
    Box* bounds;         ///< (shapes,)
    RowSort sort;        ///< of the faces, by shape << 32 | Morton code
    std::int32_t* ends;  ///< (faces,): -1, then the other end of the first child to reach a node

    void lay_out(Scratch& scratch, std::int32_t all_faces, std::int32_t shapes) {
        bounds = scratch.take<Box>(static_cast<std::size_t>(shapes));
        sort.lay_out(scratch, all_faces, bits_of_keys(shapes));
        ends = scratch.take<std::int32_t>(static_cast<std::size_t>(all_faces));
    }
};

/// Bytes that build_bvh needs of scratch memory, whatever is in it.
inline std::size_t bvh_scratch_bytes(std::int32_t faces, std::int32_t shapes) {
    BvhBuild build{};
    Scratch scratch(nullptr);
    build.lay_out(scratch, faces, shapes);
    return scratch.bytes();
}

/// The bounds of one shape's vertices, and no tree yet; `partial` holds a box for each thread.
template <class Team>
NEPA3D_DEVICE void begin_tree(const Team& team, const BvhBuild& build, std::int32_t shape, Box* partial) {
    bounds_block(team, build.vertices, build.vertex_rows, shape, build.bounds, partial);
    team.each([&](int thread) {
        if (thread == 0) build.bvh.roots[shape] = no_root;
    });
}

NEPA3D_HD inline Triangle triangle_of(const BvhBuild& build, std::int32_t shape, std::int32_t row) {
    const Corners face = build.faces[row];
    const std::int32_t first = build.vertex_rows.begin(shape);
    const Vec3 a = build.vertices[first + face.a], b = build.vertices[first + face.b],
               c = build.vertices[first + face.c];
    return {{{a.x, a.y, a.z}, {b.x, b.y, b.z}, {c.x, c.y, c.z}}, row - build.face_rows.begin(shape), {0, 0}};
}

NEPA3D_HD inline Box box_of(const Triangle& triangle) {
    Box box = Box::empty();
    for (int i = 0; i < 3; ++i) box.add(triangle.corner[i], triangle.corner[i]);
    return box;
}

/// A face's place on the curve through its shape's bounds, by its box's centre.
NEPA3D_HD inline void code_face(const BvhBuild& build, std::int32_t row) {
    const std::int32_t shape = build.face_rows.shape_of(row);
    const Box box = box_of(triangle_of(build, shape, row));
    const Box& bounds = build.bounds[shape];
    std::uint32_t code = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const float centre = 0.5f * box.low[axis] + 0.5f * box.high[axis];
        code |= spread_bits(cell_between(bounds.low[axis], bounds.high[axis], centre)) << axis;
    }
    build.sort.keys[row] = static_cast<std::uint64_t>(shape) << 32 | code;
    build.sort.rows[row] = row;
    build.ends[row] = -1;
}

/// How unlike place i and the one after it are: the greater, the higher they part. Equal codes part by their places.
NEPA3D_HD inline std::uint64_t parting(const BvhBuild& build, std::int32_t i) {
    const std::uint64_t* const sorted = build.sort.sorted;
    const auto code = static_cast<std::uint32_t>(sorted[i]) ^ static_cast<std::uint32_t>(sorted[i + 1]);
    const auto place = static_cast<std::uint32_t>(i) ^ static_cast<std::uint32_t>(i + 1);
    return static_cast<std::uint64_t>(code) << 32 | place;
}

/// Puts the triangle at `leaf` of the sorted ones in its place and goes up from it, joining ranges of neighbours, until
/// it comes to a node whose other child is still missing. The node between places i and i + 1 is node i.
NEPA3D_HD inline void climb_from(const BvhBuild& build, std::int32_t leaf) {
    const auto shape = static_cast<std::int32_t>(build.sort.sorted[leaf] >> 32);
    const std::int32_t first = build.face_rows.begin(shape), last = build.face_rows.end(shape) - 1;
    const Triangle triangle = triangle_of(build, shape, build.sort.order[leaf]);
    build.bvh.triangles[leaf] = triangle;
    Box box = box_of(triangle);
    std::int32_t left = leaf, right = leaf, here = ~leaf;
    while (left != first || right != last) {
        const bool is_left = left == first || (right != last && parting(build, right) < parting(build, left - 1));
        const std::int32_t parent = is_left ? right : left - 1;
        Node& node = build.bvh.nodes[parent];
        const int side = is_left ? 0 : 1;
        for (int axis = 0; axis < 3; ++axis)
            node.low[side][axis] = box.low[axis], node.high[side][axis] = box.high[axis];
        node.child[side] = here;
        const std::int32_t other_end = exchange(&build.ends[parent], is_left ? left : right);
        if (other_end < 0) return;
        (is_left ? right : left) = other_end;
        float low[3], high[3];
        for (int axis = 0; axis < 3; ++axis)
            low[axis] = fresh(&node.low[1 - side][axis]), high[axis] = fresh(&node.high[1 - side][axis]);
        box.add(low, high);
        here = parent;
    }
    build.bvh.roots[shape] = here;
}

}  // namespace nepa3d::cuda
