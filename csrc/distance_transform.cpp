#include "distance_transform.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>

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
    const auto set = [&](std::size_t i, std::size_t offset) {
        squared[i] = static_cast<T>(weight * static_cast<T>(offset * offset));
    };
    std::size_t last = size;  // the occupied cell before, if any
    for (std::size_t i = 0; i < size; ++i) {
        if (!occupied[i]) continue;
        if (last == size) {
            for (std::size_t k = 0; k <= i; ++k) set(k, i - k);
        } else {
            for (std::size_t k = last + 1; k <= i; ++k) set(k, std::min(i - k, k - last));
        }
        last = i;
    }
    for (std::size_t k = last; k < size; ++k) set(k, k - last);
}

/// Squared distances in units of the first spacing squared, each handed to `finish` for the distance.
template <class T, class Finish>
std::vector<float> transform(std::span<const std::uint8_t> occupancy, const Shape& shape,
                             const std::array<T, 3>& weight, T none, int threads,
                             void (*lower_envelopes)(const Lines<T>&), const Finish& finish) {
    const std::size_t plane = shape[1] * shape[2];
    constexpr std::size_t worth_a_thread = 1 << 17;  // cells
    const auto squared = std::make_unique_for_overwrite<T[]>(occupancy.size());
    parallel_for(shape[0], threads, 1, worth_a_thread / plane + 1, [&](std::size_t begin, std::size_t end) {
        const auto rows = std::make_unique_for_overwrite<T[]>(plane);
        const auto scratch = std::make_unique_for_overwrite<T[]>(Lines<T>::scratch_size(shape[1]));
        for (std::size_t at = begin * plane; at < end * plane; at += plane) {
            for (std::size_t row = 0; row < plane; row += shape[2])
                along_row(occupancy.data() + at + row, rows.get() + row, shape[2], weight[2], none);
            lower_envelopes({.from = rows.get(),
                             .stride = shape[2],
                             .to = squared.get() + at,
                             .to_stride = shape[2],
                             .size = shape[1],
                             .width = shape[2],
                             .weight = weight[1],
                             .none = none,
                             .scratch = scratch.get()});
        }
    });
    std::vector<float> distance(occupancy.size());
    constexpr std::size_t block = 128;  // lines at once, so that they stay in the cache
    parallel_for((plane + block - 1) / block, threads, 1, worth_a_thread / (block * shape[0]) + 1,
                 [&](std::size_t begin, std::size_t end) {
                     const auto lines = std::make_unique_for_overwrite<T[]>(shape[0] * block);
                     const auto scratch = std::make_unique_for_overwrite<T[]>(Lines<T>::scratch_size(shape[0]));
                     for (std::size_t at = begin * block; at < std::min(plane, end * block); at += block) {
                         const std::size_t width = std::min(block, plane - at);
                         lower_envelopes({.from = squared.get() + at,
                                          .stride = plane,
                                          .to = lines.get(),
                                          .to_stride = block,
                                          .size = shape[0],
                                          .width = width,
                                          .weight = weight[0],
                                          .none = none,
                                          .scratch = scratch.get()});
                         for (std::size_t i = 0; i < shape[0]; ++i) {
                             for (std::size_t line = 0; line < width; ++line)
                                 distance[i * plane + at + line] = finish(lines[i * block + line]);
                         }
                     }
                 });
    return distance;
}

/// The value for "nothing yet", while integers of type T hold four squared extents: three in a result, one to add.
template <class T>
T above_all(std::size_t extent) {
    return static_cast<T>(std::numeric_limits<T>::max() - static_cast<T>(extent));
}

}  // namespace

std::vector<float> distance_transform(std::span<const std::uint8_t> occupancy, std::array<std::size_t, 3> shape,
                                      std::array<double, 3> spacing, int threads) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    if (std::none_of(occupancy.begin(), occupancy.end(), [](std::uint8_t cell) { return cell != 0; }))
        return std::vector<float>(occupancy.size(), infinity);

    const auto to_distance = [&](auto squared) {
        return static_cast<float>(std::sqrt(static_cast<double>(squared)) * spacing[0]);
    };
    const std::size_t longest = std::max({shape[0], shape[1], shape[2]});
    const std::size_t extent = (longest - 1) * (longest - 1);
    const bool equal = spacing[0] == spacing[1] && spacing[0] == spacing[2];
    if (equal && 4 * extent < std::numeric_limits<std::int16_t>::max()) {
        std::vector<float> table(3 * extent + 1);
        for (std::size_t i = 0; i < table.size(); ++i) table[i] = to_distance(i);
        return transform<std::int16_t>(occupancy, shape, {1, 1, 1}, above_all<std::int16_t>(extent), threads,
                                       kernels().lower_envelopes_16,
                                       [&](std::int16_t squared) { return table[static_cast<std::size_t>(squared)]; });
    }
    if (equal && 4 * extent < std::numeric_limits<std::int32_t>::max())
        return transform<std::int32_t>(occupancy, shape, {1, 1, 1}, above_all<std::int32_t>(extent), threads,
                                       kernels().lower_envelopes_32, to_distance);
    const auto weight = [&](int axis) { return (spacing[axis] / spacing[0]) * (spacing[axis] / spacing[0]); };
    return transform<double>(occupancy, shape, {1, weight(1), weight(2)}, infinity, threads,
                             kernels().lower_envelopes_double, to_distance);
}

}  // namespace nepa3d
