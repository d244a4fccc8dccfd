#include <bit>

#include "kernels.hpp"

namespace nepa3d::NEPA3D_ISA {

/// Rounds to the nearest, ties to even, as IEEE 754 asks. Integer arithmetic, which compilers turn into vector code.
void to_half(const float* from, std::uint16_t* to, std::size_t count) {
    constexpr std::uint32_t infinity = 0x7f800000u, overflow = 0x477ff000u, least_normal = 0x38800000u;
    for (std::size_t i = 0; i < count; ++i) {
        const auto all_bits = __builtin_bit_cast(std::uint32_t, from[i]);
        const std::uint32_t sign = (all_bits >> 16) & 0x8000u, x = all_bits & 0x7fffffffu;
        const std::uint32_t normal = (x + 0xfffu + ((x >> 13) & 1u) - (112u << 23)) >> 13;
        // next to 0.5 the float32 numbers are as far apart as the least float16 ones: the addition rounds
        const float shifted = __builtin_bit_cast(float, x < least_normal ? x : 0u) + 0.5f;
        const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000u;
        const std::uint32_t magnitude = x > infinity        ? 0x7e00u
                                        : x >= overflow     ? 0x7c00u
                                        : x >= least_normal ? normal
                                                            : subnormal;
        to[i] = static_cast<std::uint16_t>(sign | magnitude);
    }
}

}  // namespace nepa3d::NEPA3D_ISA
