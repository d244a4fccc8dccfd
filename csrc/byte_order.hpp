/// Numbers from bytes of either order.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>

namespace nepa3d {

/// The number whose bytes stand at `bytes`, which need not be aligned.
template <class Number, std::endian order>
Number load(const char* bytes) {
    std::array<char, sizeof(Number)> copy;
    std::memcpy(copy.data(), bytes, sizeof(Number));
    if constexpr (order != std::endian::native) std::reverse(copy.begin(), copy.end());
    return std::bit_cast<Number>(copy);
}

}  // namespace nepa3d
