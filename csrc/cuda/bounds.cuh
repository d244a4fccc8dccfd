/// Boxes, those around the points of each shape, and curves through them.
#pragma once

#include <cstdint>
#include <limits>

#include "portable.cuh"
#include "ragged.cuh"
#include "simd/scalar.hpp"
#include "team.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct Box {
    float low[3], high[3];

    NEPA3D_HD static Box empty() {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        return {{infinity, infinity, infinity}, {-infinity, -infinity, -infinity}};
    }
    NEPA3D_HD void add(const float* other_low, const float* other_high) {
        for (int axis = 0; axis < 3; ++axis) {
            low[axis] = one_lane::min(low[axis], other_low[axis]);
            high[axis] = one_lane::max(high[axis], other_high[axis]);
        }
    }
    NEPA3D_HD void add(const Vec3& point) {
        const float at[3] = {point.x, point.y, point.z};
        add(at, at);
    }
};

constexpr int bounds_threads = 256;

/// The bounds of one shape's points, into bounds[shape]; `partial` holds a box for each thread.
template <class Team>
NEPA3D_DEVICE void bounds_block(const Team& team, const Vec3* points, const Ragged& rows, std::int32_t shape,
                                Box* bounds, Box* partial) {
    const std::int32_t begin = rows.begin(shape), end = rows.end(shape);
    team.each([&](int thread) {
        Box box = Box::empty();
        for (std::int32_t i = begin + thread; i < end; i += team.size()) box.add(points[i]);
        partial[thread] = box;
    });
    for (int half = team.size() / 2; half > 0; half /= 2) {
        team.each([&](int thread) {
            if (thread < half) partial[thread].add(partial[thread + half].low, partial[thread + half].high);
        });
    }
    team.each([&](int thread) {
        if (thread == 0) bounds[shape] = partial[0];
    });
}

/// Ten bits with two zeros between any two of them.
NEPA3D_HD inline std::uint32_t spread_bits(std::uint32_t x) {
    x = (x | (x << 16)) & 0x030000ffu;
    x = (x | (x << 8)) & 0x0300f00fu;
    x = (x | (x << 4)) & 0x030c30c3u;
    return (x | (x << 2)) & 0x09249249u;
}

/// One of 1024 steps from `low` to `high`.
NEPA3D_HD inline std::uint32_t cell_between(float low, float high, float at) {
    const float extent = high - low;
    const float cell = extent > 0 ? (at - low) / extent * 1023 : 0;
    return static_cast<std::uint32_t>(one_lane::max(one_lane::min(cell, 1023), 0));
}

/// The place on a Hilbert curve through 1024^3 cells. Neighbours along it always touch, other than along Morton's: runs
/// of points have smaller boxes. (Skilling: Programming the Hilbert Curve, 2004.)
NEPA3D_HD inline std::uint32_t hilbert_code(std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    constexpr std::uint32_t top = 1u << 9;
    for (std::uint32_t bit = top; bit > 1; bit >>= 1) {
        const std::uint32_t below = bit - 1;
        if (x & bit) x ^= below;
        const auto turn = [&](std::uint32_t& other) {
            if (other & bit) {
                x ^= below;
            } else {
                const std::uint32_t swapped = (x ^ other) & below;
                x ^= swapped, other ^= swapped;
            }
        };
        turn(y);
        turn(z);
    }
    y ^= x, z ^= y;
    std::uint32_t gray = 0;
    for (std::uint32_t bit = top; bit > 1; bit >>= 1) {
        if (z & bit) gray ^= bit - 1;
    }
    return spread_bits(x ^ gray) << 2 | spread_bits(y ^ gray) << 1 | spread_bits(z ^ gray);
}

}  // namespace nepa3d::cuda
