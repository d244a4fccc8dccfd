/// Exact Euclidean distance transform of an occupancy grid.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace nepa3d {

/// Distance from every cell centre to the centre of the nearest occupied cell; 0 inside, infinity everywhere if no
/// cell is occupied. `shape` is the number of cells along the axes, the last one contiguous; `spacing` the distance
/// between neighbouring centres along each, positive. Linear in the number of cells: one pass of lower envelopes of
/// parabolas per axis (Felzenszwalb and Huttenlocher: Distance Transforms of Sampled Functions, 2012). With equal
/// spacings squared distances are integers times the spacing squared, hence exact.
std::vector<float> distance_transform(std::span<const std::uint8_t> occupancy, std::array<std::size_t, 3> shape,
                                      std::array<double, 3> spacing, int threads);

}  // namespace nepa3d
