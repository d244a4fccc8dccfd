#include <cstring>

#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

constexpr std::size_t native_bytes = native_lanes * 4;

/// One register of T, at any address.
template <class T>
struct Register {
    using Native [[gnu::vector_size(native_bytes)]] = T;
    static constexpr std::size_t lanes = native_bytes / sizeof(T);
    Native value;

    NEPA3D_INLINE static Register load(const T* from) {
        Register r;
        std::memcpy(&r.value, from, native_bytes);
        return r;
    }
    NEPA3D_INLINE static Register all(T x) { return {x - Native{}}; }
    NEPA3D_INLINE void store(T* to) const { std::memcpy(to, &value, native_bytes); }
    NEPA3D_INLINE void lower_to(Register other) { value = other.value < value ? other.value : value; }
    NEPA3D_INLINE Register plus(Register other) const { return {value + other.value}; }
    NEPA3D_INLINE bool any_above(Register other) const { return any_bit(value > other.value); }
};

/// The same for one value.
template <class T>
struct Single {
    static constexpr std::size_t lanes = 1;
    T value;

    NEPA3D_INLINE static Single load(const T* from) { return {*from}; }
    NEPA3D_INLINE static Single all(T x) { return {x}; }
    NEPA3D_INLINE void store(T* to) const { *to = value; }
    NEPA3D_INLINE void lower_to(Single other) { value = other.value < value ? other.value : value; }
    NEPA3D_INLINE Single plus(Single other) const { return {static_cast<T>(value + other.value)}; }
    NEPA3D_INLINE bool any_above(Single other) const { return value > other.value; }
};

/// The lines [line, line + Lane::lanes), copied to one place with `none` before and after, so that no offset leads out
/// of them. Offsets grow until their parabola alone exceeds the best sum, from where they can meet a value at all.
template <class Lane, class T>
NEPA3D_INLINE void lower(const Lines<T>& lines, std::size_t line, const T* parabolas, T* padded) {
    const std::size_t size = lines.size;
    const Lane none = Lane::all(lines.none);
    const auto column = [&](std::size_t i) __attribute__((always_inline)) { return padded + (size + i) * Lane::lanes; };
    std::size_t first = size, last = 0;
    for (std::size_t i = 0; i < size; ++i) {
        const Lane value = Lane::load(lines.from + i * lines.stride + line);
        value.store(column(i));
        if (!none.any_above(value)) continue;
        if (first == size) first = i;
        last = i;
    }
    for (std::size_t i = 0; i < size; ++i) {
        T* const at = column(i);
        Lane best = Lane::load(at);
        if (first < size) {
            const std::size_t back = i > first ? i - first : 0, ahead = last > i ? last - i : 0;
            const std::size_t farthest = back > ahead ? back : ahead;
            const auto meet = [&](std::size_t offset, Lane parabola) __attribute__((always_inline)) {
                Lane nearer = Lane::load(at - offset * Lane::lanes);
                nearer.lower_to(Lane::load(at + offset * Lane::lanes));
                best.lower_to(nearer.plus(parabola));
            };
            for (std::size_t offset = i < first  ? first - i
                                      : i > last ? i - last
                                                 : 1;
                 offset <= farthest; offset += 2) {
                const Lane parabola = Lane::load(parabolas + offset * Lane::lanes);
                if (!best.any_above(parabola)) break;
                meet(offset, parabola);
                meet(offset + 1, Lane::load(parabolas + (offset + 1) * Lane::lanes));
            }
        }
        best.store(lines.to + i * lines.to_stride + line);
    }
}

/// From `line` on, as many lines as fill whole lanes; returns the next line.
template <class Lane, class T>
NEPA3D_INLINE std::size_t lower_all(const Lines<T>& lines, std::size_t line) {
    if (line + Lane::lanes > lines.width) return line;
    T* const parabolas = lines.scratch;
    T* const padded = parabolas + (lines.size + 1) * Lane::lanes;
    for (std::size_t i = 0; i <= lines.size; ++i) {
        const std::size_t offset = i < lines.size ? i : i - 1;  // the last only meets what is beyond the ends
        Lane::all(static_cast<T>(lines.weight * static_cast<T>(offset * offset))).store(parabolas + i * Lane::lanes);
    }
    for (std::size_t i = 0; i < lines.size; ++i) {
        Lane::all(lines.none).store(padded + i * Lane::lanes);
        Lane::all(lines.none).store(padded + (2 * lines.size + i) * Lane::lanes);
    }
    for (; line + Lane::lanes <= lines.width; line += Lane::lanes) lower<Lane>(lines, line, parabolas, padded);
    return line;
}

}  // namespace

template <class T>
void lower_envelopes(const Lines<T>& lines) {
    lower_all<Single<T>>(lines, lower_all<Register<T>>(lines, 0));
}

template void lower_envelopes(const Lines<std::int16_t>&);
template void lower_envelopes(const Lines<std::int32_t>&);
template void lower_envelopes(const Lines<double>&);

}  // namespace nepa3d::NEPA3D_ISA
