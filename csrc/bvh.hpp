/// First ray hits on, and nearest points of, a triangle mesh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "mesh.hpp"
#include "vec3.hpp"

namespace nepa3d {

/// The three corners of a face, and which face it is.
struct Triangle {
    Vec3 a, b, c;
    std::int32_t face;
};

struct RayHit {
    float t;                ///< ray parameter of the hit; infinity on a miss
    std::int32_t face;      ///< -1 on a miss
    float u, v;             ///< weights of corners b and c; corner a weighs 1 - u - v
};

struct SurfacePoint {
    float distance;
    std::int32_t face;
    Vec3 point;
};

/// A bounding volume hierarchy over a mesh, split by the binned surface area heuristic (Wald, 2007).
/// Built in O(F log F). Vertices must be finite; faces may be degenerate, overlap and have any winding.
class TriangleBvh {
public:
    /// Throws std::invalid_argument on no faces, more than 2^31 - 1 of them, or a vertex index out of range.
    TriangleBvh(Points vertices, std::span<const Face> faces);

    /// First hit with t >= 0, on either side of a face; of hits at the same t the lowest face. Watertight: a ray
    /// cannot pass between two faces that share an edge (Woop, Benthin, Wald, 2013). A zero direction misses.
    RayHit first_hit(Vec3 origin, Vec3 direction) const;

    /// Nearest point of the surface; of equally near faces the lowest.
    SurfacePoint closest_point(Vec3 query) const;

    std::size_t size() const { return triangles_.size(); }

private:
    struct Box {
        Vec3 low, high;
    };
    struct Node {
        Box box;
        std::uint32_t first;  ///< leaf: first triangle; inner: left child, the right one follows it
        std::uint32_t count;  ///< triangles of a leaf; 0 for an inner node
    };
    class Builder;

    std::vector<Node> nodes_;
    std::vector<Triangle> triangles_;
};

}  // namespace nepa3d
