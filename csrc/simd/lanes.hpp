/// Sixteen float32 or int32 values that go through the same arithmetic at once, in the widest registers of the
/// instruction set that the including file is compiled for: one of AVX-512, two of AVX2, four of SSE2 or NEON.
/// Contraction is off everywhere, so all of them give the same bits.
///
/// A file that includes this is compiled once per instruction set with NEPA3D_ISA naming it (see kernels.hpp). It must
/// leave no inline function of other headers out of line: the linker keeps one copy of each, and that could be the one
/// a plain processor cannot run. `make lint` looks for such copies.
#pragma once

#include <cstdint>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "scalar.hpp"

namespace nepa3d::NEPA3D_ISA {

constexpr int lanes = 16;
#if defined(__AVX512F__)
constexpr int native_lanes = 16;
#elif defined(__AVX2__)
constexpr int native_lanes = 8;
#else
constexpr int native_lanes = 4;
#endif
constexpr int parts = lanes / native_lanes;

using NativeFloat [[gnu::vector_size(native_lanes * 4)]] = float;
using NativeInt [[gnu::vector_size(native_lanes * 4)]] = std::int32_t;

struct Float {
    NativeFloat part[parts];
};
struct Int {
    NativeInt part[parts];
};

NEPA3D_INLINE Float all(float x) {
    Float a;
    for (int p = 0; p < parts; ++p) a.part[p] = x - NativeFloat{};
    return a;
}
NEPA3D_INLINE Int all(std::int32_t x) {
    Int a;
    for (int p = 0; p < parts; ++p) a.part[p] = x - NativeInt{};
    return a;
}

template <>
NEPA3D_INLINE Float constant<Float>(float x) {
    return all(x);
}

/// Sixteen values at an address that is a multiple of 64 bytes.
NEPA3D_INLINE Float load(const float* from) {
    Float a;
    for (int p = 0; p < parts; ++p) a.part[p] = reinterpret_cast<const NativeFloat*>(from)[p];
    return a;
}
NEPA3D_INLINE Int load(const std::int32_t* from) {
    Int a;
    for (int p = 0; p < parts; ++p) a.part[p] = reinterpret_cast<const NativeInt*>(from)[p];
    return a;
}
NEPA3D_INLINE void store(float* to, Float a) {
    for (int p = 0; p < parts; ++p) reinterpret_cast<NativeFloat*>(to)[p] = a.part[p];
}
NEPA3D_INLINE void store(std::int32_t* to, Int a) {
    for (int p = 0; p < parts; ++p) reinterpret_cast<NativeInt*>(to)[p] = a.part[p];
}

NEPA3D_INLINE Float operator+(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] += b.part[p];
    return a;
}
NEPA3D_INLINE Float operator-(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] -= b.part[p];
    return a;
}
NEPA3D_INLINE Float operator*(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] *= b.part[p];
    return a;
}
NEPA3D_INLINE Float operator/(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] /= b.part[p];
    return a;
}

// The rest is spelt out for AVX-512, which keeps the outcome of a comparison in a register of bits. Elsewhere it is a
// vector of all ones and all zeros. A comparison with NaN is false; min and max give b where a or b is NaN.
#if defined(__AVX512F__)

struct Mask {
    __mmask16 set;
};
NEPA3D_INLINE unsigned bits(Mask m) { return m.set; }
NEPA3D_INLINE Mask operator&(Mask a, Mask b) { return {static_cast<__mmask16>(a.set & b.set)}; }
NEPA3D_INLINE Mask operator|(Mask a, Mask b) { return {static_cast<__mmask16>(a.set | b.set)}; }
NEPA3D_INLINE Mask operator<(Float a, Float b) { return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_LT_OQ)}; }
NEPA3D_INLINE Mask operator<=(Float a, Float b) { return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_LE_OQ)}; }
NEPA3D_INLINE Mask operator==(Float a, Float b) { return {_mm512_cmp_ps_mask(a.part[0], b.part[0], _CMP_EQ_OQ)}; }
NEPA3D_INLINE Mask operator<(Int a, Int b) { return {_mm512_cmplt_epi32_mask(__m512i(a.part[0]), __m512i(b.part[0]))}; }
NEPA3D_INLINE Float select(Mask m, Float yes, Float no) {
    return {{NativeFloat(_mm512_mask_blend_ps(m.set, no.part[0], yes.part[0]))}};
}
NEPA3D_INLINE Int select(Mask m, Int yes, Int no) {
    return {{NativeInt(_mm512_mask_blend_epi32(m.set, __m512i(no.part[0]), __m512i(yes.part[0])))}};
}
NEPA3D_INLINE Float min(Float a, Float b) { return {{NativeFloat(_mm512_min_ps(a.part[0], b.part[0]))}}; }
NEPA3D_INLINE Float max(Float a, Float b) { return {{NativeFloat(_mm512_max_ps(a.part[0], b.part[0]))}}; }

#else

struct Mask {
    NativeInt part[parts];
};
NEPA3D_INLINE unsigned bits(Mask m) {
    unsigned set = 0;
    for (int p = 0; p < parts; ++p) {
#if defined(__AVX2__)
        set |= static_cast<unsigned>(_mm256_movemask_ps(__m256(m.part[p]))) << (p * native_lanes);
#elif defined(__SSE2__)
        set |= static_cast<unsigned>(_mm_movemask_ps(__m128(m.part[p]))) << (p * native_lanes);
#else
        for (int i = 0; i < native_lanes; ++i) set |= (unsigned(m.part[p][i]) & 1u) << (p * native_lanes + i);
#endif
    }
    return set;
}
NEPA3D_INLINE Mask operator&(Mask a, Mask b) {
    for (int p = 0; p < parts; ++p) a.part[p] &= b.part[p];
    return a;
}
NEPA3D_INLINE Mask operator|(Mask a, Mask b) {
    for (int p = 0; p < parts; ++p) a.part[p] |= b.part[p];
    return a;
}
NEPA3D_INLINE Mask operator<(Float a, Float b) {
    Mask m;
    for (int p = 0; p < parts; ++p) m.part[p] = a.part[p] < b.part[p];
    return m;
}
NEPA3D_INLINE Mask operator<=(Float a, Float b) {
    Mask m;
    for (int p = 0; p < parts; ++p) m.part[p] = a.part[p] <= b.part[p];
    return m;
}
NEPA3D_INLINE Mask operator==(Float a, Float b) {
    Mask m;
    for (int p = 0; p < parts; ++p) m.part[p] = a.part[p] == b.part[p];
    return m;
}
NEPA3D_INLINE Mask operator<(Int a, Int b) {
    Mask m;
    for (int p = 0; p < parts; ++p) m.part[p] = a.part[p] < b.part[p];
    return m;
}
NEPA3D_INLINE Float select(Mask m, Float yes, Float no) {
    for (int p = 0; p < parts; ++p) yes.part[p] = m.part[p] ? yes.part[p] : no.part[p];
    return yes;
}
NEPA3D_INLINE Int select(Mask m, Int yes, Int no) {
    for (int p = 0; p < parts; ++p) yes.part[p] = m.part[p] ? yes.part[p] : no.part[p];
    return yes;
}
NEPA3D_INLINE Float min(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] = a.part[p] < b.part[p] ? a.part[p] : b.part[p];
    return a;
}
NEPA3D_INLINE Float max(Float a, Float b) {
    for (int p = 0; p < parts; ++p) a.part[p] = a.part[p] > b.part[p] ? a.part[p] : b.part[p];
    return a;
}

#endif

NEPA3D_INLINE bool any(Mask m) { return bits(m) != 0; }

/// True if a register of any kind of lanes holds a bit.
template <class Native>
NEPA3D_INLINE bool any_bit(Native native) {
    static_assert(sizeof(Native) == sizeof(NativeInt));
#if defined(__AVX512F__)
    return _mm512_test_epi64_mask(__m512i(native), __m512i(native)) != 0;
#elif defined(__AVX2__)
    return _mm256_testz_si256(__m256i(native), __m256i(native)) == 0;
#else
    using Halves [[gnu::vector_size(16)]] = std::int64_t;
    const Halves halves = Halves(native);
    return (halves[0] | halves[1]) != 0;
#endif
}

NEPA3D_INLINE Float square_root(Float a) {
#if defined(__AVX512F__)
    a.part[0] = _mm512_sqrt_ps(a.part[0]);
#else
    for (int p = 0; p < parts; ++p)
        for (int i = 0; i < native_lanes; ++i) a.part[p][i] = __builtin_sqrtf(a.part[p][i]);
#endif
    return a;
}

/// The least and the greatest lane; none may be NaN.
NEPA3D_INLINE float least(Float a) {
#if defined(__AVX512F__)
    return _mm512_reduce_min_ps(a.part[0]);
#else
    NativeFloat low = a.part[0];
    for (int p = 1; p < parts; ++p) low = a.part[p] < low ? a.part[p] : low;
    float least = low[0];
    for (int i = 1; i < native_lanes; ++i) least = low[i] < least ? low[i] : least;
    return least;
#endif
}
NEPA3D_INLINE float greatest(Float a) { return -least(all(0.0f) - a); }

}  // namespace nepa3d::NEPA3D_ISA
