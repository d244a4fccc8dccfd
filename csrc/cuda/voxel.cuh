/// Occupancy grids of a batch of shapes, all of the same side: filling, dilation, interpolation, ray walks; as in
/// csrc/voxel.hpp, with its arithmetic. The grids of all shapes lie one after the other.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>

#include "portable.cuh"
#include "ragged.cuh"
#include "vec3.hpp"

namespace nepa3d::cuda {

NEPA3D_HD inline double clamped(double x, double low, double high) { return x < low ? low : high < x ? high : x; }

/// Where a shape's grid begins.
NEPA3D_HD inline std::int64_t grid_begin(std::int32_t shape, std::int32_t side) {
    return std::int64_t{shape} * side * side * side;
}

struct Voxelize {
    const Vec3* points;
    Ragged point_rows;
    std::int32_t side;
    std::uint8_t* occupancy;  ///< (shapes, side, side, side), 0 at first; out: 1 where a point is
};

NEPA3D_HD inline void mark_cell(const Voxelize& batch, std::int32_t row) {
    const float size = 2.0f / static_cast<float>(batch.side);
    std::int64_t at = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const float position = floorf((batch.points[row][axis] + 1.0f) / size);
        at = at * batch.side + static_cast<std::int64_t>(clamped(position, 0, batch.side - 1));
    }
    batch.occupancy[grid_begin(batch.point_rows.shape_of(row), batch.side) + at] = 1;
}

/// One round of 6-neighbours.
struct Dilate {
    const std::uint8_t* from;
    std::uint8_t* to;
    std::int32_t side;
};

NEPA3D_HD inline void dilate_cell(const Dilate& round, std::int32_t cell) {
    const std::int32_t side = round.side, z = cell % side, y = cell / side % side, x = cell / side / side % side;
    const std::uint8_t* const at = round.from + cell;
    round.to[cell] = at[0] | (z > 0 ? at[-1] : 0) | (z + 1 < side ? at[1] : 0) | (y > 0 ? at[-side] : 0) |
                     (y + 1 < side ? at[side] : 0) | (x > 0 ? at[-side * side] : 0) |
                     (x + 1 < side ? at[side * side] : 0);
}

struct Trilinear {
    const float* values;  ///< (shapes, side, side, side)
    std::int32_t side;
    const Vec3* points;
    Ragged point_rows;
    float* found;  ///< out, by point
};

NEPA3D_HD inline void interpolate(const Trilinear& batch, std::int32_t row) {
    const double half = 0.5 * batch.side;
    std::int64_t low[3], high[3];
    double weight[3];
    for (int axis = 0; axis < 3; ++axis) {
        const double position = (double(batch.points[row][axis]) + 1) * half - 0.5, below = floor(position);
        weight[axis] = position - below;
        low[axis] = static_cast<std::int64_t>(clamped(below, 0, batch.side - 1));
        high[axis] = static_cast<std::int64_t>(clamped(below + 1, 0, batch.side - 1));
    }
    const float* const values = batch.values + grid_begin(batch.point_rows.shape_of(row), batch.side);
    const auto mix = [](double a, double b, double w) { return a + w * (b - a); };
    const auto along_z = [&](std::int64_t x, std::int64_t y) {
        const float* const line = values + (x * batch.side + y) * batch.side;
        return mix(line[low[2]], line[high[2]], weight[2]);
    };
    const double below = mix(along_z(low[0], low[1]), along_z(low[0], high[1]), weight[1]);
    const double above = mix(along_z(high[0], low[1]), along_z(high[0], high[1]), weight[1]);
    batch.found[row] = static_cast<float>(mix(below, above, weight[0]));
}

struct VoxelWalks {
    const std::uint8_t* occupancy;  ///< (shapes, side, side, side)
    std::int32_t side;
    const Vec3 *origins, *directions;
    Ragged ray_rows;
    std::int32_t max_steps;
    bool* hit;  ///< out, by ray
    float* t;   ///< out, by ray: where the occupied cell is entered; 0 on a miss
};

/// Amanatides and Woo's walk of one ray; see VoxelRays::first_hits for the order of the axes.
NEPA3D_HD inline void walk_ray(const VoxelWalks& batch, std::int32_t row) {
    constexpr double infinity = std::numeric_limits<double>::infinity();
    const Vec3d o = to_double(batch.origins[row]), d = to_double(batch.directions[row]);
    const std::int32_t side = batch.side;
    batch.hit[row] = false, batch.t[row] = 0;
    double entered = 0, leave = infinity;
    for (int axis = 0; axis < 3; ++axis) {
        if (d[axis] == 0) {
            if (fabs(o[axis]) > 1) return;
            continue;
        }
        const double a = (-1 - o[axis]) / d[axis], b = (1 - o[axis]) / d[axis];
        const double first = a < b ? a : b, second = a < b ? b : a;
        entered = entered < first ? first : entered;
        leave = second < leave ? second : leave;
    }
    if (!(entered <= leave) || leave == infinity) return;

    const double size = 2.0 / side;
    const std::uint8_t* at = batch.occupancy + grid_begin(batch.ray_rows.shape_of(row), side);
    double boundary[3], stride[3];
    std::int32_t left[3], step[3];
    for (int axis = 0; axis < 3; ++axis) {
        const auto cell = static_cast<std::int32_t>(clamped((o[axis] + entered * d[axis] + 1) / size, 0, side - 1));
        const int sign = (d[axis] > 0) - (d[axis] < 0);
        const std::int32_t apart = axis == 0 ? side * side : axis == 1 ? side : 1;
        at += cell * apart;
        boundary[axis] = sign ? (-1 + (cell + (sign > 0)) * size - o[axis]) / d[axis] : infinity;
        stride[axis] = sign ? size / fabs(d[axis]) : infinity;
        step[axis] = sign * apart;
        left[axis] = sign > 0 ? side - 1 - cell : cell;
    }
    for (std::int32_t i = 0; i < batch.max_steps; ++i) {
        if (*at) {
            batch.hit[row] = true, batch.t[row] = static_cast<float>(entered);
            return;
        }
        const bool along_x = boundary[0] < boundary[1] && boundary[0] < boundary[2];
        const bool along_y = !along_x && boundary[1] < boundary[2];
        const bool moves[3] = {along_x, along_y, !along_x && !along_y};
        for (int axis = 0; axis < 3; ++axis) {  // no index that is known only at run time
            if (!moves[axis]) continue;
            if (--left[axis] < 0) return;
            entered = boundary[axis], boundary[axis] += stride[axis], at += step[axis];
        }
    }
}

}  // namespace nepa3d::cuda
