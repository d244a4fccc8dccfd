#include "ordering.hpp"

#include <algorithm>
#include <array>
#include <numeric>

namespace nepa3d {

namespace {

std::uint32_t spread_bits(std::uint32_t x) {
    x = (x | (x << 16)) & 0x030000ffu;
    x = (x | (x << 8)) & 0x0300f00fu;
    x = (x | (x << 4)) & 0x030c30c3u;
    return (x | (x << 2)) & 0x09249249u;
}

std::uint32_t interleave(std::uint32_t x, std::uint32_t y, std::uint32_t z) {
    return spread_bits(x) | spread_bits(y) << 1 | spread_bits(z) << 2;
}

/// One of 1024 cells along [0, 1].
std::uint32_t unit_cell(float x) { return static_cast<std::uint32_t>(std::clamp(x * 1023.0f, 0.0f, 1023.0f)); }

/// Indices that sort by a code of `digits` times 10 bits, stable: radix sort.
template <class Code>
std::vector<std::uint32_t> sort_by_code(std::size_t size, int digits, const Code& code) {
    constexpr int digit_bits = 10;
    constexpr std::uint32_t digit_mask = (1u << digit_bits) - 1;
    struct Keyed {
        std::uint32_t code, index;
    };
    std::vector<Keyed> keyed(size), scratch(size);
    std::array<std::array<std::uint32_t, digit_mask + 1>, 3> place{};
    for (std::size_t i = 0; i < size; ++i) {
        const std::uint32_t c = code(i);
        keyed[i] = {c, static_cast<std::uint32_t>(i)};
        for (int digit = 0; digit < digits; ++digit) ++place[digit][(c >> (digit * digit_bits)) & digit_mask];
    }
    for (int digit = 0; digit < digits; ++digit) {
        auto& next = place[digit];
        std::exclusive_scan(next.begin(), next.end(), next.begin(), 0u);
        for (const Keyed& k : keyed) scratch[next[(k.code >> (digit * digit_bits)) & digit_mask]++] = k;
        keyed.swap(scratch);
    }
    std::vector<std::uint32_t> order(size);
    std::transform(keyed.begin(), keyed.end(), order.begin(), [](const Keyed& k) { return k.index; });
    return order;
}

}  // namespace

std::uint32_t morton_code(Vec3 point) {
    const auto cell = [](float x) { return unit_cell(x / 2.0f + 0.5f); };
    return interleave(cell(point.x), cell(point.y), cell(point.z));
}

std::vector<std::int64_t> morton_order(Points points) {
    const auto sorted = sort_by_code(points.size(), 3, [&](std::size_t i) { return morton_code(points[i]); });
    return {sorted.begin(), sorted.end()};
}

std::vector<std::uint32_t> spatial_order(Points points) {
    if (points.empty()) return {};
    Vec3 low = points[0], high = low;
    for (const Vec3 p : points) low = min(low, p), high = max(high, p);
    const auto scale = [](float extent) { return extent > 0 ? 127 / extent : 0.0f; };
    const Vec3 scales{scale(high.x - low.x), scale(high.y - low.y), scale(high.z - low.z)};
    const auto cell = [](float x) { return static_cast<std::uint32_t>(std::clamp(x, 0.0f, 127.0f)); };
    return sort_by_code(points.size(), 2, [&](std::size_t i) {
        const Vec3 d = points[i] - low;
        return interleave(cell(d.x * scales.x), cell(d.y * scales.y), cell(d.z * scales.z)) >> 1;
    });
}

std::vector<std::int64_t> ray_direction_order(Points directions) {
    struct Keyed {
        float theta, phi;
        std::int64_t index;
    };
    std::vector<Keyed> keyed(directions.size());
    for (std::size_t i = 0; i < directions.size(); ++i) {
        const Vec3d d = to_double(directions[i]);
        keyed[i] = {static_cast<float>(std::atan2(d.y, d.x)), static_cast<float>(std::acos(std::clamp(d.z, -1.0, 1.0))),
                    static_cast<std::int64_t>(i)};
    }
    std::stable_sort(keyed.begin(), keyed.end(), [](const Keyed& a, const Keyed& b) {
        return a.theta < b.theta || (a.theta == b.theta && a.phi < b.phi);
    });
    std::vector<std::int64_t> order(directions.size());
    std::transform(keyed.begin(), keyed.end(), order.begin(), [](const Keyed& k) { return k.index; });
    return order;
}

}  // namespace nepa3d
