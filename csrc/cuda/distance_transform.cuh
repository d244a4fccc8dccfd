/// Exact distance transforms of a batch of occupancy grids, one axis after the other (Saito and Toriwaki, 1994); as in
/// csrc/distance_transform.hpp. Every cell takes the least sum of its line, looking no farther than that sum allows.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <limits>

#include "portable.cuh"
#include "scratch.hpp"

namespace nepa3d::cuda {

/// Squared distances in units of the first spacing squared: integers where all spacings are equal, then exact.
template <class T>
struct Squared;
template <>
struct Squared<std::int32_t> {
    static constexpr std::int32_t none = std::numeric_limits<std::int32_t>::max() / 2;  ///< nothing to measure to
};
template <>
struct Squared<double> {
    static constexpr double none = std::numeric_limits<double>::infinity();
};

/// One axis: cells `apart` from each other, `size` to a line.
template <class T, class From>
struct AlongAxis {
    const From* from;  ///< squared distances so far, or the occupancy
    T* to;
    std::int32_t size, apart;
    T weight;
};

template <class T, class From>
NEPA3D_HD void transform_cell(const AlongAxis<T, From>& axis, std::int32_t cell) {
    const auto value = [&](const From* at) -> T {
        if constexpr (sizeof(From) == 1) return *at ? T{0} : Squared<T>::none;
        else return *at;
    };
    const std::int32_t place = cell / axis.apart % axis.size;
    const From* const at = axis.from + cell;
    T best = value(at);
    for (std::int32_t offset = 1; offset < axis.size; ++offset) {
        const T parabola = axis.weight * static_cast<T>(offset * offset);
        if (!(parabola < best)) break;
        const auto lower_to = [&](T squared) {
            const T sum = squared + parabola;
            if (sum < best) best = sum;
        };
        if (offset <= place) lower_to(value(at - std::int64_t{offset} * axis.apart));
        if (place + offset < axis.size) lower_to(value(at + std::int64_t{offset} * axis.apart));
    }
    axis.to[cell] = best;
}

template <class T>
struct ToDistance {
    const T* squared;
    double spacing;  ///< the first
    float* distance;
};

template <class T>
NEPA3D_HD void transform_cell(const ToDistance<T>& batch, std::int32_t cell) {
    const T squared = batch.squared[cell];
    batch.distance[cell] = squared < Squared<T>::none
                               ? static_cast<float>(sqrt(static_cast<double>(squared)) * batch.spacing)
                               : std::numeric_limits<float>::infinity();
}

/// The pass of either kind at one cell.
template <class Pass>
NEPA3D_HD void run_pass(const Pass& pass, std::int32_t cell) {
    transform_cell(pass, cell);
}

struct Transforms {
    const std::uint8_t* occupancy;  ///< (grids, shape...)
    std::int32_t grids;
    std::array<std::int32_t, 3> shape;
    std::array<double, 3> spacing;
    float* distance;  ///< out: to the nearest occupied cell's centre; infinity where nothing is occupied

    std::int32_t cells() const { return grids * shape[0] * shape[1] * shape[2]; }
    /// Integers do, while they hold four squared extents.
    bool integers() const {
        std::int64_t longest = 0;
        for (const std::int32_t size : shape) longest = longest < size ? size : longest;
        return spacing[0] == spacing[1] && spacing[0] == spacing[2] && longest < 16384;
    }
};

inline std::size_t transform_scratch_bytes(const Transforms& batch) {
    const auto cells = static_cast<std::size_t>(batch.cells());
    return 2 * cells * (batch.integers() ? sizeof(std::int32_t) : sizeof(double));
}

/// The passes over all cells; `run` is called with the batch of each.
template <class T, class Run>
void transform_in(T* scratch, const Transforms& batch, const Run& run) {
    T *const here = scratch, *const there = scratch + batch.cells();
    const auto weight = [&](int axis) {
        return static_cast<T>((batch.spacing[axis] / batch.spacing[0]) * (batch.spacing[axis] / batch.spacing[0]));
    };
    const auto& shape = batch.shape;
    run(AlongAxis<T, std::uint8_t>{batch.occupancy, here, shape[2], 1, weight(2)});
    run(AlongAxis<T, T>{here, there, shape[1], shape[2], weight(1)});
    run(AlongAxis<T, T>{there, here, shape[0], shape[1] * shape[2], T{1}});
    run(ToDistance<T>{here, batch.spacing[0], batch.distance});
}

template <class Run>
void transform_by(const Transforms& batch, void* scratch, std::size_t scratch_bytes, const Run& run) {
    require_bytes(scratch_bytes, transform_scratch_bytes(batch));
    if (batch.integers()) transform_in(static_cast<std::int32_t*>(scratch), batch, run);
    else transform_in(static_cast<double*>(scratch), batch, run);
}

}  // namespace nepa3d::cuda
