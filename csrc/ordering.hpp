/// Orders that turn a set of queries into a sequence.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "vec3.hpp"

namespace nepa3d {

/// Morton codes (Morton, 1966) of points of [-1, 1]^3: 10 bits an axis, x lowest; outside points are clamped.
std::vector<std::uint32_t> morton_codes(Points points);

/// Indices that sort `points` by Morton code; equal codes keep their order. O(N), by radix.
std::vector<std::int64_t> morton_order(Points points);

/// An order of points anywhere, along a coarse Morton curve through their bounding box: neighbours in it are near each
/// other. Up to 2^32 - 1 points.
std::vector<std::uint32_t> spatial_order(Points points);

/// Indices that sort unit directions by azimuth atan2(y, x), then by polar angle acos(z), both rounded to float32;
/// equal ones keep their order. O(R log R).
std::vector<std::int64_t> ray_direction_order(Points directions);

}  // namespace nepa3d
