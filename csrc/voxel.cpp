#include "voxel.hpp"

#include <limits>

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

VoxelHit voxel_first_hit(std::span<const std::uint8_t> occupancy, int grid, Vec3 origin, Vec3 direction,
                         int max_steps) {
    const Vec3d o = to_double(origin), d = to_double(direction);
    const double size = 2.0 / grid;
    double enter = 0, leave = infinity;
    for (int axis = 0; axis < 3; ++axis) {
        if (d[axis] == 0) {
            if (std::abs(o[axis]) > 1) return {false, 0};
            continue;
        }
        double near = (-1 - o[axis]) / d[axis], far = (1 - o[axis]) / d[axis];
        if (near > far) std::swap(near, far);
        enter = std::max(enter, near);
        leave = std::min(leave, far);
    }
    if (!(enter <= leave) || leave == infinity) return {false, 0};

    int cell[3], step[3];
    double boundary[3], stride[3];
    for (int axis = 0; axis < 3; ++axis) {
        const double position = o[axis] + enter * d[axis];
        cell[axis] = static_cast<int>(std::clamp(std::floor((position + 1) / size), 0.0, double(grid - 1)));
        step[axis] = (d[axis] > 0) - (d[axis] < 0);
        boundary[axis] = step[axis] ? (-1 + (cell[axis] + (step[axis] > 0)) * size - o[axis]) / d[axis] : infinity;
        stride[axis] = step[axis] ? size / std::abs(d[axis]) : infinity;
    }
    double entered = enter;
    for (int i = 0; i < max_steps; ++i) {
        const auto g = static_cast<std::size_t>(grid);
        const std::size_t at = (static_cast<std::size_t>(cell[0]) * g + static_cast<std::size_t>(cell[1])) * g +
                               static_cast<std::size_t>(cell[2]);
        if (occupancy[at]) return {true, static_cast<float>(entered)};
        const int axis = boundary[0] < boundary[1] && boundary[0] < boundary[2] ? 0 : boundary[1] < boundary[2] ? 1 : 2;
        entered = boundary[axis];
        boundary[axis] += stride[axis];
        cell[axis] += step[axis];
        if (cell[axis] < 0 || cell[axis] >= grid) break;
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
