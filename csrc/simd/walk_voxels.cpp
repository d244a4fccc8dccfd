#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr std::size_t width = native_lanes / 2;  // 64-bit values in a register
using Doubles [[gnu::vector_size(width * 8)]] = double;
using Longs [[gnu::vector_size(width * 8)]] = std::int64_t;

NEPA3D_INLINE Doubles load_doubles(const double* from) { return *reinterpret_cast<const Doubles*>(from); }
NEPA3D_INLINE Longs load_longs(const std::int64_t* from) { return *reinterpret_cast<const Longs*>(from); }

/// All ones in the lanes whose bit of `occupied` is set.
NEPA3D_INLINE Longs look_up(const std::uint32_t* occupied, Longs at) {
#if defined(__AVX512F__)
    const __m256i words = _mm512_i64gather_epi32(__m512i(at >> 5), occupied, 4);
    const Longs word = Longs(_mm512_cvtepu32_epi64(words));
#elif defined(__AVX2__)
    const __m128i words = _mm256_i64gather_epi32(reinterpret_cast<const int*>(occupied), __m256i(at >> 5), 4);
    const Longs word = Longs(_mm256_cvtepu32_epi64(words));
#else
    Longs word;
    for (std::size_t i = 0; i < width; ++i) word[i] = occupied[at[i] >> 5];
#endif
    return ((word >> (at & 31)) & 1) != 0;
}

}  // namespace

/// No branch depends on which axis is next: x if its boundary is strictly the nearest, else y if strictly nearer than
/// z. Nor does the way on depend on what was found: rays walk until the last of a register has its answer, so that
/// looking cells up overlaps with the steps after.
void walk_voxels(VoxelWalk& walk, std::size_t count, const std::uint32_t* occupied, int max_steps) {
    for (std::size_t first = 0; first < count; first += width) {
        Longs active;
        for (std::size_t i = 0; i < width; ++i) active[i] = first + i < count ? -1 : 0;
        Longs inside = active;  // where there is no ray, nothing may be looked up either
        Longs at = load_longs(walk.at + first) & inside;
        Longs hit{};
        Longs left[3], step[3];
        Doubles boundary[3], stride[3];
        for (int axis = 0; axis < 3; ++axis) {
            left[axis] = load_longs(walk.left[axis] + first), step[axis] = load_longs(walk.step[axis] + first);
            boundary[axis] = load_doubles(walk.boundary[axis] + first);
            stride[axis] = load_doubles(walk.stride[axis] + first);
        }
        Doubles entered = load_doubles(walk.entered + first), entered_hit{};
        const Doubles leave = load_doubles(walk.leave + first);
        for (int i = 0; i < max_steps; ++i) {
            active &= entered <= leave;
            if (!any_bit(active & ~hit)) break;
            const Longs found = look_up(occupied, at) & active & ~hit;
            entered_hit = found ? entered : entered_hit;
            hit |= found;
            const Doubles x = boundary[0], y = boundary[1], z = boundary[2];
            const Longs along_x = (x < y) & (x < z), along_y = ~along_x & (y < z);
            const Longs moves[3] = {along_x, along_y, ~(along_x | along_y)};
            entered = along_x ? x : along_y ? y : z;
            Longs change{}, beyond{};
            for (int axis = 0; axis < 3; ++axis) {
                boundary[axis] = moves[axis] ? boundary[axis] + stride[axis] : boundary[axis];
                change |= step[axis] & moves[axis];
                left[axis] += moves[axis];  // minus one
                beyond |= left[axis];
            }
            inside &= beyond >= 0;
            active &= inside;
            at += change & inside;
        }
        *reinterpret_cast<Longs*>(walk.hit + first) = hit;
        *reinterpret_cast<Doubles*>(walk.entered + first) = entered_hit;
    }
}

}  // namespace nepa3d::NEPA3D_ISA
