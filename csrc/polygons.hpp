/// Polygons of any number of corners as triangles.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mesh.hpp"

namespace nepa3d {

/// The triangles of one polygon: always corners.size() - 2 of them, with the polygon's winding, every corner used.
///
/// The polygon is seen along its Newell normal (Newell's method, Sutherland, Sproull and Schumacker 1974), in which it
/// runs counter-clockwise. Three rules, in this order:
///  1. The fan around the first corner, if none of its triangles is turned over. This holds for every convex polygon.
///  2. For four corners the fan around the second, if none of its triangles is turned over.
///  3. Ear clipping (Meisters 1975). An ear is a corner on a straight run, or one whose triangle is not turned over and
///     holds no reflex corner, its edges included; corners in the place of the triangle's other two do not count. Corners
///     are looked at in their order, after a cut first the one before it, then the one after it.
/// What is not simple (edges cross) may leave no ear; then the first corner of the polygon that is not reflex is cut, and
/// if there is none, the first. A polygon without a normal (no area, a corner that is not finite) keeps its fan.
///
/// `corners`, three or more, must index `vertices`. Writes corners.size() - 2 faces to `faces`.
/// O(n) for a fan, else O(n r) at most with r reflex corners, about O(n log n) where they are spread out.
void triangulate_polygon(std::span<const Vec3d> vertices, std::span<const std::int64_t> corners, Face* faces);

/// Takes the polygons of a file, corner by corner, and gives their triangles once all vertices are known, in order.
class PolygonList {
public:
    void reserve(std::size_t triangles) { faces_.reserve(triangles); }

    /// Adds a corner to the polygon that is open.
    void add(std::int64_t corner) {
        if (open_ >= 3) {
            if (open_ == 3) corners_.insert(corners_.end(), first_, first_ + 3);
            corners_.push_back(corner);
        } else {
            first_[open_] = corner;
        }
        ++open_;
    }

    /// Closes the open polygon; one of fewer than three corners has no surface and is left out.
    void close() {
        if (open_ == 3) {
            faces_.push_back({first_[0], first_[1], first_[2]});
        } else if (open_ > 3) {
            polygons_.push_back({corners_.size() - open_, open_, faces_.size()});
            faces_.resize(faces_.size() + open_ - 2);
        }
        open_ = 0;
    }

    /// Adds a triangle.
    void add_triangle(const Face& face) { faces_.push_back(face); }

    /// The triangles of all closed polygons, whose corners must index `vertices`.
    std::vector<Face> triangles(std::span<const Vec3d> vertices) &&;

private:
    struct Polygon {
        std::size_t first_corner, corners, first_face;
    };

    std::vector<std::int64_t> corners_;  // of polygons with more than three
    std::vector<Polygon> polygons_;
    std::vector<Face> faces_;
    std::int64_t first_[3] = {};  // corners of the open polygon
    std::size_t open_ = 0;        // how many it has
};

}  // namespace nepa3d
