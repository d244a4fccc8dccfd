/// Points on a mesh's surface.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "mesh.hpp"
#include "vec3.hpp"

namespace nepa3d {

struct SurfaceSample {
    Vec3 point, normal;  ///< the face's unit normal, by its winding
    std::int64_t face;
};

/// The areas of a mesh's faces, for any number of samples.
class SurfaceSampler {
public:
    /// O(F). Throws std::invalid_argument if a face is out of range or the total area is not positive. The mesh must
    /// stay where it is.
    SurfaceSampler(Points vertices, std::span<const Face> faces);

    /// One sample per row of `uniforms`, three numbers in [0, 1]: the first picks a face with probability proportional
    /// to its area, the others the place in it (square-root parametrisation: Osada et al., Shape Distributions, 2002).
    /// O(F + N) on average.
    std::vector<SurfaceSample> sample(Points uniforms) const;

private:
    Points vertices_;
    std::span<const Face> faces_;
    std::vector<double> cumulative_;
    std::size_t last_;  ///< the last face with an area: rounding must not carry a sample past it
};

}  // namespace nepa3d
