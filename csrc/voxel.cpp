#include "voxel.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace nepa3d {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// One round of 6-neighbour dilation: dilated rows first, then their neighbours along y and x.
void dilate_once(const std::vector<std::uint8_t>& from, std::vector<std::uint8_t>& to, std::size_t g) {
    to = from;
    const std::size_t plane = g * g;
    for (std::size_t x = 0; x < g; ++x) {
        for (std::size_t y = 0; y < g; ++y) {
            const std::uint8_t* row = from.data() + x * plane + y * g;
            std::uint8_t* out = to.data() + x * plane + y * g;
            for (std::size_t z = 0; z + 1 < g; ++z) out[z] |= row[z + 1];
            for (std::size_t z = 1; z < g; ++z) out[z] |= row[z - 1];
            const auto merge = [&](const std::uint8_t* neighbour) {
                for (std::size_t z = 0; z < g; ++z) out[z] |= neighbour[z];
            };
            if (y > 0) merge(row - g);
            if (y + 1 < g) merge(row + g);
            if (x > 0) merge(row - plane);
            if (x + 1 < g) merge(row + plane);
        }
    }
}

}  // namespace

std::vector<std::uint8_t> voxelize(Points points, int grid, int dilate) {
    const auto g = static_cast<std::size_t>(grid);
    std::vector<std::uint8_t> occupied(g * g * g, 0);
    const float size = 2.0f / static_cast<float>(grid), last = static_cast<float>(grid - 1);
    const auto cell = [&](float x) {
        return static_cast<std::size_t>(std::clamp(std::floor((x + 1.0f) / size), 0.0f, last));
    };
    for (const Vec3 p : points) occupied[(cell(p.x) * g + cell(p.y)) * g + cell(p.z)] = 1;
    std::vector<std::uint8_t> grown;
    for (int round = 0; round < dilate; ++round) {
        dilate_once(occupied, grown, g);
        occupied.swap(grown);
    }
    return occupied;
}

VoxelRays::VoxelRays(std::span<const std::uint8_t> occupancy, int grid) : occupancy_(occupancy), grid_(grid) {
    const auto g = static_cast<std::size_t>(grid);
    std::vector<std::uint8_t> in_plane(g), in_row(g), in_column(g);
    for (std::size_t x = 0; x < g; ++x) {
        for (std::size_t y = 0; y < g; ++y) {
            const std::uint8_t* row = occupancy.data() + (x * g + y) * g;
            std::uint8_t any = 0;
            for (std::size_t z = 0; z < g; ++z) in_column[z] |= row[z], any |= row[z];
            in_plane[x] |= any, in_row[y] |= any;
        }
    }
    const double size = 2.0 / grid;
    const std::vector<std::uint8_t>* const along[3] = {&in_plane, &in_row, &in_column};
    for (int axis = 0; axis < 3; ++axis) {
        const auto is_set = [](std::uint8_t any) { return any != 0; };
        const auto first = std::find_if(along[axis]->begin(), along[axis]->end(), is_set);
        const auto last = std::find_if(along[axis]->rbegin(), along[axis]->rend(), is_set);
        low_[axis] = -1 + size * static_cast<double>(first - along[axis]->begin() - 1);
        high_[axis] = 1 - size * static_cast<double>(last - along[axis]->rbegin() - 1);
    }
}

VoxelHit VoxelRays::first_hit(Vec3 origin, Vec3 direction, int max_steps) const {
    const Vec3d o = to_double(origin), d = to_double(direction);
    const double size = 2.0 / grid_;
    double enter = 0, leave = infinity, enter_bounds = 0, leave_bounds = infinity;
    for (int axis = 0; axis < 3; ++axis) {
        if (d[axis] == 0) {
            if (std::abs(o[axis]) > 1) return {false, 0};
            continue;
        }
        const auto clip = [&](double low, double high, double& from, double& to) {
            double near = (low - o[axis]) / d[axis], far = (high - o[axis]) / d[axis];
            if (near > far) std::swap(near, far);
            from = std::max(from, near);
            to = std::min(to, far);
        };
        clip(-1, 1, enter, leave);
        clip(low_[axis], high_[axis], enter_bounds, leave_bounds);
    }
    if (!(enter <= leave) || leave == infinity || !(enter_bounds <= leave_bounds)) return {false, 0};

    std::int64_t at = 0, step[3], left[3];  // index of the cell, its change and the cells left along each axis
    double boundary[3], stride[3];
    for (int axis = 0; axis < 3; ++axis) {
        const double position = o[axis] + enter * d[axis];
        const int cell = static_cast<int>(std::clamp(std::floor((position + 1) / size), 0.0, double(grid_ - 1)));
        const int sign = (d[axis] > 0) - (d[axis] < 0);
        at = at * grid_ + cell;
        step[axis] = sign * (axis == 0 ? std::int64_t{grid_} * grid_ : axis == 1 ? grid_ : 1);
        left[axis] = sign > 0 ? grid_ - 1 - cell : cell;
        boundary[axis] = sign ? (-1 + (cell + (sign > 0)) * size - o[axis]) / d[axis] : infinity;
        stride[axis] = sign ? size / std::abs(d[axis]) : infinity;
    }
    // No branch in here depends on which axis is next.
    double x = boundary[0], y = boundary[1], z = boundary[2], entered = enter;
    for (int i = 0; i < max_steps && entered <= leave_bounds; ++i) {
        if (occupancy_[static_cast<std::size_t>(at)]) return {true, static_cast<float>(entered)};
        const bool along_x = (x < y) & (x < z), along_y = !along_x & (y < z), along_z = !along_x & !along_y;
        entered = along_x ? x : along_y ? y : z;
        x += along_x ? stride[0] : 0;
        y += along_y ? stride[1] : 0;
        z += along_z ? stride[2] : 0;
        at += along_x ? step[0] : along_y ? step[1] : step[2];
        left[0] -= along_x, left[1] -= along_y, left[2] -= along_z;
        if ((left[0] | left[1] | left[2]) < 0) break;
    }
    return {false, 0};
}

float trilinear_sample(std::span<const float> values, int grid, Vec3 point) {
    const double half = 0.5 * grid;
    std::size_t low[3], high[3];
    double weight[3];
    for (int axis = 0; axis < 3; ++axis) {
        const double position = (double(point[axis]) + 1) * half - 0.5;
        const double floor = std::floor(position);
        weight[axis] = position - floor;
        low[axis] = static_cast<std::size_t>(std::clamp(floor, 0.0, double(grid - 1)));
        high[axis] = static_cast<std::size_t>(std::clamp(floor + 1, 0.0, double(grid - 1)));
    }
    const auto g = static_cast<std::size_t>(grid);
    const auto mix = [](double a, double b, double w) { return a + w * (b - a); };
    const auto along_z = [&](std::size_t x, std::size_t y) {
        const float* row = values.data() + (x * g + y) * g;
        return mix(row[low[2]], row[high[2]], weight[2]);
    };
    const double below = mix(along_z(low[0], low[1]), along_z(low[0], high[1]), weight[1]);
    const double above = mix(along_z(high[0], low[1]), along_z(high[0], high[1]), weight[1]);
    return static_cast<float>(mix(below, above, weight[0]));
}

}  // namespace nepa3d
