/// The arc tangent, from additions, multiplications and divisions alone, so that it has the same bits on every machine
/// and on a GPU, where the functions of the C library differ in their last bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "vec3.hpp"

#if defined(__CUDACC__)
#define NEPA3D_ARCS __host__ __device__
#else
#define NEPA3D_ARCS
#endif

namespace nepa3d {

constexpr bool is_negative(double a) { return std::bit_cast<std::uint64_t>(a) >> 63 != 0; }

/// atan2(y, x) to about one unit in the last place; zeros count with their signs. Arguments must be finite.
///
/// The angle of the smaller to the larger argument lies near one of five whose tangents are multiples of 1/4; what is
/// left has a tangent of at most 1/8, for which eight terms of the Taylor series do. pi/2 and the angles are sums of two
/// numbers.
constexpr double arc_tangent(double y, double x) {
    const double along = is_negative(x) ? -x : x, across = is_negative(y) ? -y : y;
    const bool steep = across > along;
    const double smaller = steep ? along : across, larger = steep ? across : along;
    double angle = 0;
    if (smaller > 0) {
        const double ratio = smaller / larger;
        const int near = ratio > 0.875 ? 4 : ratio > 0.625 ? 3 : ratio > 0.375 ? 2 : ratio > 0.125 ? 1 : 0;
        const double tangent = 0.25 * near;
        const double high = near == 4   ? 0x1.921fb54442d18p-1
                            : near == 3 ? 0x1.4978fa3269ee1p-1
                            : near == 2 ? 0x1.dac670561bb4fp-2
                            : near == 1 ? 0x1.f5b75f92c80ddp-3
                                        : 0;
        const double low = near == 4   ? 0x1.1a62633145c07p-55
                           : near == 3 ? 0x1.2419a87f2a458p-56
                           : near == 2 ? 0x1.a2b7f222f65e2p-56
                           : near == 1 ? 0x1.8ab6e3cf7afbdp-57
                                       : 0;
        const double left = (smaller - tangent * larger) / (larger + tangent * smaller), square = left * left;
        double series = 1.0 / 17;
        for (int term = 15; term >= 3; term -= 2) series = 1.0 / term - square * series;
        angle = high + (low + (left - left * square * series));
    }
    constexpr double half_pi = 0x1.921fb54442d18p+0, half_pi_low = 0x1.1a62633145c07p-54;
    const bool backwards = is_negative(x);
    if (steep && backwards) angle = half_pi + (angle + half_pi_low);
    else if (steep) angle = half_pi - (angle - half_pi_low);
    else if (backwards) angle = 2 * half_pi - (angle - 2 * half_pi_low);
    return is_negative(y) ? -angle : angle;
}

/// Where a unit direction points: atan2(y, x) and acos(z), rounded to float.
struct DirectionAngles {
    float azimuth, polar;
};

NEPA3D_ARCS inline DirectionAngles direction_angles(Vec3 direction) {
    const Vec3d d = to_double(direction);
    const double z = d.z < -1 ? -1 : d.z > 1 ? 1 : d.z;
    return {static_cast<float>(arc_tangent(d.y, d.x)), static_cast<float>(arc_tangent(sqrt(1 - z * z), z))};
}

}  // namespace nepa3d
