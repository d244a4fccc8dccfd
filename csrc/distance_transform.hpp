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
/// between neighbouring centres along each, positive.
///
/// Separable (Saito and Toriwaki, 1994): each axis adds its squared offset and takes the least sum, looking no farther
/// than the best sum so far; many lines at once. In time proportional to the cells times the distances in them, which
/// for grids in use is well below the linear algorithms' constant. With equal spacings squared distances are integers
/// times the spacing squared, hence exact.
std::vector<float> distance_transform(std::span<const std::uint8_t> occupancy, std::array<std::size_t, 3> shape,
                                      std::array<double, 3> spacing, int threads);

}  // namespace nepa3d
