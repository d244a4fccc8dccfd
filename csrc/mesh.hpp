/// Triangle meshes as arrays, and their cleaning.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "vec3.hpp"

namespace nepa3d {

/// Vertex indices of a triangle: one row of an (F, 3) array.
struct Face {
    std::int64_t a, b, c;
};

/// Vertices as read, before they are scaled and rounded to float32.
struct Mesh {
    std::vector<Vec3d> vertices;
    std::vector<Face> faces;
};

/// vertices[index], or std::invalid_argument naming the argument if there is no such vertex.
template <class T>
T corner_of(std::span<const T> vertices, std::int64_t index, const char* argument = "faces") {
    if (index < 0 || static_cast<std::size_t>(index) >= vertices.size())
        throw std::invalid_argument(std::string(argument) + " must index " + std::to_string(vertices.size()) +
                                    " vertices, got index " + std::to_string(index));
    return vertices[static_cast<std::size_t>(index)];
}

/// What clean_mesh dropped.
struct Dropped {
    std::size_t nonfinite_vertices = 0;
    std::size_t nonfinite_faces = 0;   ///< faces that touch one of them
    std::size_t degenerate_faces = 0;  ///< two corners in one place, or no area
    std::size_t duplicate_faces = 0;   ///< same three vertices as an earlier face, in any order
    std::size_t unreferenced_vertices = 0;
};

/// The mesh without what carries no surface; kept faces and vertices stay in order. O(V + F) on average.
/// Throws std::invalid_argument if a face is out of range, or there are 2^32 - 1 or more.
Mesh clean_mesh(std::span<const Vec3d> vertices, std::span<const Face> faces, Dropped& dropped);

/// Vertices in the unit sphere, and where they lay: a vertex v lay at scale * v + centre.
struct Fitted {
    std::vector<Vec3> vertices;
    Vec3d centre;
    double scale = 1;
};

/// Vertices centred on their bounding box and divided by the largest norm, so that they fit the unit sphere. They must
/// be finite and not all in one place.
Fitted fit_unit_sphere(std::span<const Vec3d> vertices);

}  // namespace nepa3d
