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

/// One sample per row of `uniforms`, three numbers in [0, 1): the first picks a face with probability proportional
/// to its area, the others the place in it (square-root parametrisation: Osada et al., Shape Distributions, 2002).
/// O(F + N) on average. Throws std::invalid_argument if a face is out of range or the total area is not positive.
std::vector<SurfaceSample> sample_surface(Points vertices, std::span<const Face> faces, Points uniforms);

}  // namespace nepa3d
