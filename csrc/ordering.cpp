#include "ordering.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <utility>

#include "arcs.hpp"
#include "simd/kernels.hpp"

namespace nepa3d {

namespace {

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
    const auto keyed = std::make_unique_for_overwrite<Keyed[]>(count);
    const auto scratch = std::make_unique_for_overwrite<Keyed[]>(count);
    for (std::uint32_t i = 0; i < count; ++i) keyed[place[0][digit_of(codes[i], 0)]++] = {codes[i], i};
    Keyed *from = keyed.get(), *to = scratch.get();
    for (int digit = 1; digit + 1 < digits; ++digit, std::swap(from, to)) {
        for (std::size_t i = 0; i < count; ++i) to[place[digit][digit_of(from[i].code, digit)]++] = from[i];
    }
    std::vector<std::uint32_t> order(count);
    auto& next = place[digits - 1];
    for (std::size_t i = 0; i < count; ++i) order[next[digit_of(from[i].code, digits - 1)]++] = from[i].index;
    return order;
}

}  // namespace

std::vector<std::uint32_t> morton_codes(Points points) {
    const CellGrid grid{.scale = 0.5f, .offset = {0.5f, 0.5f, 0.5f}, .cells = {1023, 1023, 1023}, .last = 1023};
    std::vector<std::uint32_t> codes(points.size());
    kernels().morton_codes(points.data(), points.size(), grid, codes.data());
    return codes;
}

std::vector<std::int64_t> morton_order(Points points) {
    const std::vector<std::uint32_t> order = sort_by_code<3>(morton_codes(points));
    return {order.begin(), order.end()};
}

std::vector<std::uint32_t> spatial_order(Points points) {
    if (points.empty()) return {};
    Vec3 low = points[0], high = low;
    for (const Vec3 p : points) low = min(low, p), high = max(high, p);
    const auto cells = [](float extent) { return extent > 0 ? 127 / extent : 0.0f; };
    const CellGrid grid{.scale = 1,
                        .offset = {-low.x, -low.y, -low.z},
                        .cells = {cells(high.x - low.x), cells(high.y - low.y), cells(high.z - low.z)},
                        .last = 127};
    std::vector<std::uint32_t> codes(points.size());
    kernels().morton_codes(points.data(), points.size(), grid, codes.data());
    for (std::uint32_t& code : codes) code >>= 1;  // 20 of 21 bits: two digits
    return sort_by_code<2>(codes);
}

std::vector<std::int64_t> ray_direction_order(Points directions) {
    struct Keyed {
        float theta, phi;
        std::int64_t index;
    };
    std::vector<Keyed> keyed(directions.size());
    for (std::size_t i = 0; i < directions.size(); ++i) {
        const auto [theta, phi] = direction_angles(directions[i]);
        keyed[i] = {theta, phi, static_cast<std::int64_t>(i)};
    }
    std::stable_sort(keyed.begin(), keyed.end(), [](const Keyed& a, const Keyed& b) {
        return a.theta < b.theta || (a.theta == b.theta && a.phi < b.phi);
    });
    std::vector<std::int64_t> order(directions.size());
    std::transform(keyed.begin(), keyed.end(), order.begin(), [](const Keyed& k) { return k.index; });
    return order;
}

}  // namespace nepa3d
