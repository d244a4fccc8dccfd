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

/// The lines [line, line + Lane::lanes). Offsets grow until their parabola alone exceeds the best sum.
template <class Lane, class T>
NEPA3D_INLINE void lower(const Lines<T>& lines, std::size_t line) {
    bool reachable = false;
    for (std::size_t i = 0; i < lines.size && !reachable; ++i)
        reachable = Lane::all(lines.none).any_above(Lane::load(lines.from + i * lines.stride + line));
    for (std::size_t i = 0; i < lines.size; ++i) {
        const T* const at = lines.from + i * lines.stride + line;
        Lane best = Lane::load(at);
        const std::size_t before = i, after = lines.size - 1 - i, farthest = before > after ? before : after;
        const auto parabola = [&](std::size_t offset) __attribute__((always_inline)) {
            return Lane::all(static_cast<T>(lines.weight * static_cast<T>(offset * offset)));
        };
        for (std::size_t offset = 1; reachable && offset <= farthest; offset += 2) {
            if (!best.any_above(parabola(offset))) break;
            for (std::size_t next = offset; next < offset + 2; ++next) {
                if (next <= before) best.lower_to(Lane::load(at - next * lines.stride).plus(parabola(next)));
                if (next <= after) best.lower_to(Lane::load(at + next * lines.stride).plus(parabola(next)));
            }
        }
        best.store(lines.to + i * lines.to_stride + line);
    }
}

}  // namespace

template <class T>
void lower_envelopes(const Lines<T>& lines) {
    std::size_t line = 0;
    for (; line + Register<T>::lanes <= lines.width; line += Register<T>::lanes) lower<Register<T>>(lines, line);
    for (; line < lines.width; ++line) lower<Single<T>>(lines, line);
}

template void lower_envelopes(const Lines<std::int16_t>&);
template void lower_envelopes(const Lines<std::int32_t>&);
template void lower_envelopes(const Lines<double>&);

}  // namespace nepa3d::NEPA3D_ISA
