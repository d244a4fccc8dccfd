#include "distance_transform.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "parallel.hpp"
#include "simd/kernels.hpp"

namespace nepa3d {

namespace {

using Shape = std::array<std::size_t, 3>;

/// Squared distances along the last axis only, times `weight`; `none` in rows without an occupied cell.
template <class T>
void along_row(const std::uint8_t* occupied, T* squared, std::size_t size, T weight, T none) {
    std::fill_n(squared, size, none);
    std::uint8_t any = 0;
    for (std::size_t i = 0; i < size; ++i) any |= occupied[i];
    if (any == 0) return;
    std::size_t last = size;  // the occupied cell before, if any
    for (std::size_t i = 0; i < size; ++i) {
        if (!occupied[i]) continue;
        const std::size_t first = last == size ? 0 : last + 1;
        for (std::size_t k = first; k <= i; ++k) {
            const std::size_t offset = last == size ? i - k : std::min(i - k, k - last);
            squared[k] = static_cast<T>(weight * static_cast<T>(offset * offset));
        }
        last = i;
    }
    for (std::size_t k = last; k < size; ++k) squared[k] = static_cast<T>(weight * static_cast<T>((k - last) * (k - last)));
}

/// Squared distances, in units of the first spacing squared.
template <class T>
std::vector<T> squared_distances(std::span<const std::uint8_t> occupancy, const Shape& shape,
                                 const std::array<T, 3>& weight, T none, int threads,
                                 void (*lower_envelopes)(const Lines<T>&)) {
    const std::size_t rows = shape[0] * shape[1], plane = shape[1] * shape[2];
    std::vector<T> from(occupancy.size()), to(occupancy.size());
    parallel_for(rows, threads, 64, [&](std::size_t begin, std::size_t end) {
        for (std::size_t row = begin * shape[2]; row < end * shape[2]; row += shape[2])
            along_row(occupancy.data() + row, from.data() + row, shape[2], weight[2], none);
    });
    parallel_for(shape[0], threads, 1, [&](std::size_t begin, std::size_t end) {
        for (std::size_t at = begin * plane; at < end * plane; at += plane)
            lower_envelopes({from.data() + at, to.data() + at, shape[1], shape[2], shape[2], weight[1], none});
    });
    parallel_for(plane, threads, 256, [&](std::size_t begin, std::size_t end) {
        lower_envelopes({to.data() + begin, from.data() + begin, shape[0], plane, end - begin, weight[0], none});
    });
    return from;
}

/// For equal spacings, while integers of type T hold four squared extents: three in a result, one more added to none.
template <class T>
std::vector<T> squared_steps(std::span<const std::uint8_t> occupancy, const Shape& shape, std::size_t longest,
                             int threads, void (*lower_envelopes)(const Lines<T>&)) {
    const T none = static_cast<T>(std::numeric_limits<T>::max() - static_cast<T>((longest - 1) * (longest - 1)));
    return squared_distances<T>(occupancy, shape, {1, 1, 1}, none, threads, lower_envelopes);
}

}  // namespace

std::vector<float> distance_transform(std::span<const std::uint8_t> occupancy, std::array<std::size_t, 3> shape,
                                      std::array<double, 3> spacing, int threads) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    std::vector<float> distance(occupancy.size(), infinity);
    const auto is_occupied = [](std::uint8_t cell) { return cell != 0; };
    if (std::none_of(occupancy.begin(), occupancy.end(), is_occupied)) return distance;

    const auto to_distance = [&](auto squared) {
        return static_cast<float>(std::sqrt(static_cast<double>(squared)) * spacing[0]);
    };
    const std::size_t longest = std::max({shape[0], shape[1], shape[2]});
    const std::size_t extent = (longest - 1) * (longest - 1);
    const bool equal = spacing[0] == spacing[1] && spacing[0] == spacing[2];
    if (equal && longest < 1000 && 4 * extent < std::numeric_limits<std::int16_t>::max()) {
        const auto squared = squared_steps<std::int16_t>(occupancy, shape, longest, threads, kernels().lower_envelopes_16);
        std::vector<float> table(3 * extent + 1);
        for (std::size_t i = 0; i < table.size(); ++i) table[i] = to_distance(i);
        for (std::size_t i = 0; i < distance.size(); ++i) distance[i] = table[static_cast<std::size_t>(squared[i])];
    } else if (equal && longest < 20000) {
        const auto squared = squared_steps<std::int32_t>(occupancy, shape, longest, threads, kernels().lower_envelopes_32);
        std::transform(squared.begin(), squared.end(), distance.begin(), to_distance);
    } else {
        const auto weight = [&](int axis) { return (spacing[axis] / spacing[0]) * (spacing[axis] / spacing[0]); };
        const auto squared = squared_distances<double>(occupancy, shape, {1, weight(1), weight(2)}, infinity, threads,
                                                       kernels().lower_envelopes_double);
        std::transform(squared.begin(), squared.end(), distance.begin(), to_distance);
    }
    return distance;
}

}  // namespace nepa3d
