/// First ray hits on, and nearest points of, a triangle mesh.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "mesh.hpp"
#include "simd/kernels.hpp"
#include "vec3.hpp"

namespace nepa3d {

/// A bounding volume hierarchy over a mesh: sixteen children a node, up to sixteen triangles a leaf, split by the
/// binned surface area heuristic (Wald: On fast Construction of SAH-based Bounding Volume Hierarchies, 2007). Built in
/// O(F log F). Vertices must be finite; faces may be degenerate, overlap and have any winding.
///
/// Answers are those of comparing with every face, whatever the tree: a hit counts no earlier than the ray enters the
/// face's box, a face is no nearer than its box, and boxes around others are entered no later and are no farther.
class TriangleBvh {
public:
    /// Throws std::invalid_argument on no faces, more than 2^31 - 1 of them, or a vertex index out of range.
    TriangleBvh(Points vertices, std::span<const Face> faces, int threads);

    /// First hit of each ray with t >= 0, on either side of a face; of hits at the same t the lowest face. Watertight:
    /// a ray cannot pass between two faces that share an edge (Woop, Benthin, Wald, 2013). A zero direction misses.
    void first_hits(Points origins, Points directions, std::span<RayHit> found, int threads) const;

    /// Nearest point of the surface to each query; of equally near faces the lowest.
    void closest_points(Points queries, std::span<SurfacePoint> found, int threads) const;

    std::size_t size() const { return size_; }
    std::size_t nbytes() const { return nodes_.size() * sizeof(BvhNode) + leaves_.size() * sizeof(TriangleLeaf); }

private:
    class Builder;
    BvhView view() const { return {nodes_.data(), leaves_.data()}; }

    std::size_t size_;
    std::vector<BvhNode> nodes_;
    std::vector<TriangleLeaf> leaves_;
};

}  // namespace nepa3d
