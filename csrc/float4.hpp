/// Four floats in one register: x, y, z and a fourth lane that is ignored or carries an index, bit for bit.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "vec3.hpp"

namespace nepa3d {

using Float4 [[gnu::vector_size(16)]] = float;

inline Float4 min(Float4 a, Float4 b) { return a < b ? a : b; }
inline Float4 max(Float4 a, Float4 b) { return a > b ? a : b; }
inline Float4 with_index(Vec3 v, std::uint32_t index) { return Float4{v.x, v.y, v.z, std::bit_cast<float>(index)}; }
inline std::uint32_t index_of(Float4 v) { return std::bit_cast<std::uint32_t>(v[3]); }

/// An axis-aligned box; empty at first.
struct Box4 {
    Float4 low = Float4{} + std::numeric_limits<float>::infinity();
    Float4 high = Float4{} - std::numeric_limits<float>::infinity();

    void add(Float4 low_corner, Float4 high_corner) { low = min(low, low_corner), high = max(high, high_corner); }
    void add(const Box4& other) { add(other.low, other.high); }
    float half_area() const {
        const Float4 e = high - low;
        return e[0] * e[1] + e[1] * e[2] + e[2] * e[0];
    }
    int widest_axis() const {
        const Float4 e = high - low;
        if (e[0] >= e[1] && e[0] >= e[2]) return 0;
        return e[1] >= e[2] ? 1 : 2;
    }
};

}  // namespace nepa3d
