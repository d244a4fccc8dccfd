#include "ordering.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <utility>

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

/// Indices that sort codes of `digits` times 10 bits, stable: radix sort.
template <int digits>
std::vector<std::uint32_t> sort_by_code(const std::vector<std::uint32_t>& codes) {
    constexpr int digit_bits = 10;
    constexpr std::uint32_t size = 1u << digit_bits;
    struct Keyed {
        std::uint32_t code, index;
    };
    const auto digit_of = [](std::uint32_t code, int digit) { return (code >> (digit * digit_bits)) & (size - 1); };
    std::array<std::array<std::uint32_t, size>, digits> place{};
    for (const std::uint32_t code : codes) {
        for (int digit = 0; digit < digits; ++digit) ++place[digit][digit_of(code, digit)];
    }
    for (auto& counts : place) std::exclusive_scan(counts.begin(), counts.end(), counts.begin(), 0u);

    const std::size_t count = codes.size();
    const auto keyed = std::make_unique_for_overwrite<Keyed[]>(count), scratch = std::make_unique_for_overwrite<Keyed[]>(count);
    for (std::uint32_t i = 0; i < count; ++i) keyed[place[0][digit_of(codes[i], 0)]++] = {codes[i], i};
    Keyed *from = keyed.get(), *to = scratch.get();
    for (int digit = 1; digit + 1 < digits; ++digit, std::swap(from, to)) {
        for (std::size_t i = 0; i < count; ++i) to[place[digit][digit_of(from[i].code, digit)]++] = from[i];
    }
    std::vector<std::uint32_t> order(count);
    for (std::size_t i = 0; i < count; ++i) order[place[digits - 1][digit_of(from[i].code, digits - 1)]++] = from[i].index;
    return order;
}

}  // namespace

std::uint32_t morton_code(Vec3 point) {
    const auto cell = [](float x) { return unit_cell(x / 2.0f + 0.5f); };
    return interleave(cell(point.x), cell(point.y), cell(point.z));
}

std::vector<std::int64_t> morton_order(Points points) {
    std::vector<std::uint32_t> codes(points.size());
    std::transform(points.begin(), points.end(), codes.begin(), morton_code);
    const std::vector<std::uint32_t> order = sort_by_code<3>(codes);
    return {order.begin(), order.end()};
}

std::vector<std::uint32_t> spatial_order(Points points) {
    if (points.empty()) return {};
    Vec3 low = points[0], high = low;
    for (const Vec3 p : points) low = min(low, p), high = max(high, p);
    const auto scale = [](float extent) { return extent > 0 ? 127 / extent : 0.0f; };
    const Vec3 scales{scale(high.x - low.x), scale(high.y - low.y), scale(high.z - low.z)};
    const auto cell = [](float x) { return static_cast<std::uint32_t>(x > 0 ? std::min(x, 127.0f) : 0.0f); };  // NaN: 0
    std::vector<std::uint32_t> codes(points.size());
    std::transform(points.begin(), points.end(), codes.begin(), [&](const Vec3 p) {
        const Vec3 d = p - low;
        return interleave(cell(d.x * scales.x), cell(d.y * scales.y), cell(d.z * scales.z)) >> 1;
    });
    return sort_by_code<2>(codes);
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
