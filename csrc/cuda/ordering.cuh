/// Orders that turn the points or rays of each shape of a batch into a sequence; as csrc/ordering.hpp has them.
#pragma once

#include <bit>
#include <cstdint>

#include "arcs.hpp"
#include "bounds.cuh"
#include "portable.cuh"
#include "ragged.cuh"
#include "row_sort.hpp"
#include "scratch.hpp"
#include "simd/scalar.hpp"
#include "vec3.hpp"

namespace nepa3d::cuda {

struct Ordering {
    const Vec3* values;  ///< points of [-1, 1]^3, or directions
    Ragged rows;
    std::int64_t* order;  ///< out, by place among its shape's: which row stands there, counted from the shape's first

    // Scratch, see lay_out.
    RowSort sort;
    std::uint32_t* azimuths;  ///< (rows,) of directions

    void lay_out(Scratch& scratch) {
        sort.lay_out(scratch, rows.rows, bits_of_keys(rows.shapes));
        azimuths = scratch.take<std::uint32_t>(static_cast<std::size_t>(rows.rows));
    }
};

inline std::size_t ordering_bytes(std::int32_t rows, std::int32_t shapes) {
    Ordering batch{};
    batch.rows = {nullptr, shapes, rows};
    Scratch scratch(nullptr);
    batch.lay_out(scratch);
    return scratch.bytes();
}

NEPA3D_HD inline void code_morton(const Ordering& batch, std::int32_t row) {
    const Vec3 at = batch.values[row];
    const auto cell = [](float x) {
        const float position = (x * 0.5f + 0.5f) * 1023.0f;
        return static_cast<std::uint32_t>(one_lane::min(one_lane::max(position, 0), 1023));
    };
    const std::uint32_t code = spread_bits(cell(at.x)) | spread_bits(cell(at.y)) << 1 | spread_bits(cell(at.z)) << 2;
    batch.sort.keys[row] = static_cast<std::uint64_t>(batch.rows.shape_of(row)) << 32 | code;
    batch.sort.rows[row] = row;
}

/// Numbers for floats, in their order; one for both zeros.
NEPA3D_HD inline std::uint32_t rising(float value) {
    const auto bits = std::bit_cast<std::uint32_t>(value == 0 ? 0.0f : value);
    return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

// By azimuth, then by polar angle: sorted by the latter first.

NEPA3D_HD inline void code_polar(const Ordering& batch, std::int32_t row) {
    const DirectionAngles angles = direction_angles(batch.values[row]);
    batch.azimuths[row] = rising(angles.azimuth);
    batch.sort.keys[row] = rising(angles.polar);
    batch.sort.rows[row] = row;
}

NEPA3D_HD inline void code_azimuth(const Ordering& batch, std::int32_t place) {
    const std::int32_t row = batch.sort.order[place];
    batch.sort.keys[place] = static_cast<std::uint64_t>(batch.rows.shape_of(row)) << 32 | batch.azimuths[row];
    batch.sort.rows[place] = row;
}

NEPA3D_HD inline void number_row(const Ordering& batch, std::int32_t place) {
    const auto shape = static_cast<std::int32_t>(batch.sort.sorted[place] >> 32);
    batch.order[place] = batch.sort.order[place] - batch.rows.begin(shape);
}

}  // namespace nepa3d::cuda
