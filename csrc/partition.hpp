/// Partitions without a branch that depends on the data: on keys in no order they are several times faster than the
/// standard library's, whose branch is mispredicted every other time.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>

namespace nepa3d {

/// Moves the values that satisfy `goes_left` to the front; returns their end.
template <class T, class GoesLeft>
T* partition_branchless(T* first, T* last, const GoesLeft& goes_left) {
    T* middle = first;
    for (T* at = first; at != last; ++at) {
        const T value = *at;
        *at = *middle;
        *middle = value;
        middle += goes_left(value);
    }
    return middle;
}

/// std::nth_element by key(value): quickselect (Hoare, 1961) with the median of nine as pivot, handed over to the
/// standard library if unlucky pivots leave it short of a few values.
template <class T, class Key>
void select_nth(T* first, T* nth, T* last, const Key& key) {
    const int rounds = 2 * static_cast<int>(std::bit_width(static_cast<std::size_t>(last - first)));
    for (int round = 0; round < rounds && last - first > 32; ++round) {
        std::array<float, 9> sample;
        const std::ptrdiff_t step = (last - first) / 9;
        for (std::ptrdiff_t i = 0; i < 9; ++i) sample[static_cast<std::size_t>(i)] = key(first[i * step + step / 2]);
        std::sort(sample.begin(), sample.end());
        const float pivot = sample[4];
        T* middle = partition_branchless(first, last, [&](const T& value) { return key(value) < pivot; });
        if (nth < middle) {
            last = middle;
            continue;
        }
        if (middle == first) {  // the pivot is the least key: set its equals aside
            middle = partition_branchless(first, last, [&](const T& value) { return key(value) <= pivot; });
            if (nth < middle) return;
        }
        first = middle;
    }
    std::nth_element(first, nth, last, [&](const T& a, const T& b) { return key(a) < key(b); });
}

}  // namespace nepa3d
