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

std::uint32_t cell(float x) {
    const float scaled = (x / 2.0f + 0.5f) * 1023.0f;
    return static_cast<std::uint32_t>(std::clamp(scaled, 0.0f, 1023.0f));
}

}  // namespace

std::uint32_t morton_code(Vec3 point) {
    return spread_bits(cell(point.x)) | spread_bits(cell(point.y)) << 1 | spread_bits(cell(point.z)) << 2;
}

std::vector<std::int64_t> morton_order(Points points) {
    constexpr int digit_bits = 10;
    struct Keyed {
        std::uint32_t code, index;
    };
    std::vector<Keyed> keyed(points.size()), scratch(points.size());
    for (std::size_t i = 0; i < points.size(); ++i)
        keyed[i] = {morton_code(points[i]), static_cast<std::uint32_t>(i)};
    for (int shift = 0; shift < 30; shift += digit_bits) {
        std::array<std::size_t, 1 << digit_bits> place{};
        const auto digit = [&](const Keyed& k) { return (k.code >> shift) & ((1u << digit_bits) - 1); };
        for (const Keyed& k : keyed) ++place[digit(k)];
        std::exclusive_scan(place.begin(), place.end(), place.begin(), std::size_t{0});
        for (const Keyed& k : keyed) scratch[place[digit(k)]++] = k;
        keyed.swap(scratch);
    }
    std::vector<std::int64_t> order(points.size());
    std::transform(keyed.begin(), keyed.end(), order.begin(), [](const Keyed& k) { return std::int64_t{k.index}; });
    return order;
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
