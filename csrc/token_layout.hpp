/// The layout of tokens: columns of the features and type ids, those of python/nepa3d/token/schema.py.
#pragma once

#include <cstddef>
#include <cstdint>

namespace nepa3d {

constexpr std::size_t feature_dim = 15;

/// First columns of a token's features.
namespace column {
constexpr std::size_t xyz = 0;  ///< 3, of a point query, or where a ray hits
constexpr std::size_t ray_origin = 3;  ///< 3
constexpr std::size_t ray_direction = 6;  ///< 3
constexpr std::size_t ray_t = 9;
constexpr std::size_t point_distance = 10;
constexpr std::size_t ray_hit = 11;
constexpr std::size_t ray_normal = 12;  ///< 3
static_assert(ray_normal + 3 == feature_dim);
}  // namespace column

enum class Token : std::int64_t { bos, point, ray, missing_ray, eos, q_point, a_point, q_ray, a_ray };

/// Tokens a query takes: in Q/A form its answer has one of its own.
constexpr std::size_t stride_of(bool qa) { return qa ? 2 : 1; }

}  // namespace nepa3d
