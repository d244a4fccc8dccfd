#include "kernels.hpp"
#include "lanes.hpp"

namespace nepa3d::NEPA3D_ISA {

namespace {

NEPA3D_INLINE std::uint32_t spread_bits(std::uint32_t x) {
    x = (x | (x << 16)) & 0x030000ffu;
    x = (x | (x << 8)) & 0x0300f00fu;
    x = (x | (x << 4)) & 0x030c30c3u;
    return (x | (x << 2)) & 0x09249249u;
}

}  // namespace

/// A plain loop, which compilers turn into vector code.
void morton_codes(const Vec3* points, std::size_t count, const CellGrid& grid, std::uint32_t* codes) {
    const auto last = static_cast<float>(grid.last);
    const auto cell = [last](float x, float scale, float offset, float cells) __attribute__((always_inline)) {
        const float position = (x * scale + offset) * cells;
        const float from_zero = position > 0 ? position : 0;  // also from NaN
        return static_cast<std::uint32_t>(static_cast<std::int32_t>(from_zero < last ? from_zero : last));
    };
    for (std::size_t i = 0; i < count; ++i) {
        const std::uint32_t x = cell(points[i].x, grid.scale, grid.offset[0], grid.cells[0]);
        const std::uint32_t y = cell(points[i].y, grid.scale, grid.offset[1], grid.cells[1]);
        const std::uint32_t z = cell(points[i].z, grid.scale, grid.offset[2], grid.cells[2]);
        codes[i] = spread_bits(x) | spread_bits(y) << 1 | spread_bits(z) << 2;
    }
}

}  // namespace nepa3d::NEPA3D_ISA
