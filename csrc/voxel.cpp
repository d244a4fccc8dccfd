#include "voxel.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>

#include "parallel.hpp"

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

VoxelRays::VoxelRays(std::span<const std::uint8_t> occupancy, int grid)
    : grid_(grid), bits_((occupancy.size() + 31) / 32, 0) {
    const auto g = static_cast<std::size_t>(grid);
    std::vector<std::uint8_t> in_plane(g), in_row(g), in_column(g);
    for (std::size_t x = 0; x < g; ++x) {
        for (std::size_t y = 0; y < g; ++y) {
            const std::size_t begin = (x * g + y) * g;
            std::uint8_t any = 0;
            for (std::size_t z = 0; z < g; ++z) any |= occupancy[begin + z];
            if (any == 0) continue;
            in_plane[x] = in_row[y] = 1;
            for (std::size_t z = 0; z < g; ++z) {
                const bool occupied = occupancy[begin + z] != 0;
                in_column[z] |= occupied;
                bits_[(begin + z) / 32] |= std::uint32_t{occupied} << ((begin + z) % 32);
            }
        }
    }
    const double size = 2.0 / grid;
    const std::vector<std::uint8_t>* const along[3] = {&in_plane, &in_row, &in_column};
    for (int axis = 0; axis < 3; ++axis) {
        const auto first = std::find(along[axis]->begin(), along[axis]->end(), 1);
        const auto last = std::find(along[axis]->rbegin(), along[axis]->rend(), 1);
        low_[axis] = -1 + size * static_cast<double>(first - along[axis]->begin() - 1);
        high_[axis] = 1 - size * static_cast<double>(last - along[axis]->rbegin() - 1);
    }
}

/// Puts a ray into the cell where it enters the cube; false if it misses the cube or what is in it.
bool VoxelRays::start(Vec3 origin, Vec3 direction, VoxelWalk& walk, std::size_t ray) const {
    const Vec3d o = to_double(origin), d = to_double(direction);
    const auto clip = [](double a, double b, double& enter, double& leave) {
        enter = std::max(enter, std::min(a, b));
        leave = std::min(leave, std::max(a, b));
    };
    double enter_bounds = 0, leave_bounds = infinity;
    for (int axis = 0; axis < 3; ++axis) {
        if (d[axis] == 0) {
            if (std::abs(o[axis]) > 1) return false;
            continue;
        }
        const double inverse = 1 / d[axis];
        clip((low_[axis] - o[axis]) * inverse, (high_[axis] - o[axis]) * inverse, enter_bounds, leave_bounds);
    }
    if (!(enter_bounds <= leave_bounds)) return false;
    double enter = 0, leave = infinity;
    for (int axis = 0; axis < 3; ++axis) {
        if (d[axis] != 0) clip((-1 - o[axis]) / d[axis], (1 - o[axis]) / d[axis], enter, leave);
    }
    if (!(enter <= leave) || leave == infinity) return false;

    const double size = 2.0 / grid_;
    std::int64_t at = 0;
    for (int axis = 0; axis < 3; ++axis) {
        const double position = (o[axis] + enter * d[axis] + 1) / size;
        const auto cell = static_cast<int>(std::clamp(position, 0.0, double(grid_ - 1)));
        const int sign = (d[axis] > 0) - (d[axis] < 0);
        at = at * grid_ + cell;
        walk.boundary[axis][ray] = sign ? (-1 + (cell + (sign > 0)) * size - o[axis]) / d[axis] : infinity;
        walk.stride[axis][ray] = sign ? size / std::abs(d[axis]) : infinity;
        walk.step[axis][ray] = sign * (axis == 0 ? std::int64_t{grid_} * grid_ : axis == 1 ? grid_ : 1);
        walk.left[axis][ray] = sign > 0 ? grid_ - 1 - cell : cell;
    }
    walk.at[ray] = at;
    walk.entered[ray] = enter;
    walk.leave[ray] = leave_bounds;
    return true;
}

void VoxelRays::first_hits(Points origins, Points directions, int max_steps, std::span<VoxelHit> found,
                           int threads) const {
    constexpr std::size_t capacity = VoxelWalk::capacity;
    parallel_for((origins.size() + capacity - 1) / capacity, threads, 1, 8, [&](std::size_t begin, std::size_t end) {
        const auto walk = std::make_unique<VoxelWalk>();
        std::array<std::size_t, capacity> ray;
        for (std::size_t chunk = begin; chunk < end; ++chunk) {
            std::size_t count = 0;
            for (std::size_t i = chunk * capacity; i < std::min(origins.size(), (chunk + 1) * capacity); ++i) {
                found[i] = {false, 0};
                if (start(origins[i], directions[i], *walk, count)) ray[count++] = i;
            }
            kernels().walk_voxels(*walk, count, bits_.data(), max_steps);
            for (std::size_t i = 0; i < count; ++i) {
                if (walk->hit[i]) found[ray[i]] = {true, static_cast<float>(walk->entered[i])};
            }
        }
    });
}

float trilinear_sample(std::span<const float> values, int grid, Vec3 point) {
    const double half = 0.5 * grid;
    std::size_t low[3], high[3];
    double weight[3];
    for (int axis = 0; axis < 3; ++axis) {
        // beyond the grid both neighbours are one cell, and the weight between them is of no account
        const double position = std::clamp((double(point[axis]) + 1) * half - 0.5, -1.0, double(grid));
        const int truncated = static_cast<int>(position), floor = truncated - (position < truncated);
        weight[axis] = position - floor;
        low[axis] = static_cast<std::size_t>(std::clamp(floor, 0, grid - 1));
        high[axis] = static_cast<std::size_t>(std::clamp(floor + 1, 0, grid - 1));
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
