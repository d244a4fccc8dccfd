/// The pools of a cached shape as a view of it answers them: only the rows that are asked for. python/nepa3d/backends
/// gives the same of whole pools.
#pragma once

#include <algorithm>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "npz.hpp"
#include "vec3.hpp"
#include "view_row.hpp"

namespace nepa3d {

/// The grid of the voxel view; `max_steps` 0: three times its side.
struct VoxelGrid {
    int side, dilate, max_steps;
};

using Rows = std::vector<std::uint32_t>;

/// The pools of a file, checked as they are opened: all of a letter (N, P, R) must have the same length.
class Pools {
public:
    explicit Pools(const Npz& file) : file_(file) {}

    bool contains(const std::string& key) const { return file_.contains(key); }
    std::size_t length(char letter) const { return sizes_[letter == 'N' ? 0 : letter == 'P' ? 1 : 2].rows; }

    Array vectors(const std::string& key, char letter) { return open(key, letter, 2, "f"); }
    Array scalars(const std::string& key, char letter) { return open(key, letter, 1, "f"); }
    Array flags(const std::string& key, char letter) { return open(key, letter, 1, "fbiu"); }

private:
    struct Size {
        std::string key;  ///< of the first array of the letter; empty: none was opened
        std::size_t rows = 0;
    };

    Array open(const std::string& key, char letter, int rank, std::string_view kinds);

    const Npz& file_;
    Size sizes_[3];
};

/// The voxel view of a file: its grid, made anew from the point cloud.
class VoxelView {
public:
    VoxelView(Pools& pools, const VoxelGrid& grid);

    /// What distance_transform gives at the queries' cells.
    std::vector<float> distances(Points queries) const;

    /// First hits in the grid: 0 or 1, ray parameter, normal of the nearest point of the cloud.
    void cast(Points origins, Points directions, std::vector<float>& hit, std::vector<float>& t,
              std::vector<Vec3>& normal) const;

private:
    std::vector<Vec3> points_, normals_;
    int grid_, max_steps_;
    std::vector<std::uint8_t> occupancy_;
};

/// A file, its pools and, where a grid is asked for, its voxels.
struct OpenShape {
    OpenShape(const NpzPlace& place, const std::optional<VoxelGrid>& grid);

    Npz file;
    Pools pools;
    std::optional<VoxelView> voxel;
};

/// Point queries and a view's answers to them, along the Morton curve.
struct AnsweredPoints {
    std::vector<Vec3> xyz;
    std::vector<float> distance;
};

/// How many points a sample may ask for, the first of the pool: all, or only those of the uniform draw in [-1, 1)^3 that
/// it begins with (python/nepa3d/samples/questions.py says how they are told). Throws FileFault where there are none.
std::size_t questions_of(const Array& xyz_pool, bool uniform);

/// Rows `rows` of pt_xyz_pool in Morton order, which `rows` is put into, too.
std::vector<Vec3> along_the_curve(const Array& xyz_pool, Rows& rows);

/// Rows `rows` of the pool of point queries, which is `xyz_pool`, pt_xyz_pool of the shape. A view of voxels needs a
/// shape opened with a grid.
AnsweredPoints answered_points(OpenShape& shape, const ViewRow& view, const Array& xyz_pool, Rows rows);

/// The suffix of the ray answers that a view with stored rays takes of a file: the first that is there, else the last.
const std::string& ray_suffix(const Pools& pools, const ViewRow& view);

std::vector<Vec3> vectors_of(const Array& array, std::span<const std::uint32_t> rows);
std::vector<float> scalars_of(const Array& array, std::span<const std::uint32_t> rows);
void require_finite(Points points, const char* key);
/// Throws FileFault if a number is infinite or NaN.
void require_finite_sample(std::span<const float> features);

template <class T>
std::vector<T> in_order(const std::vector<T>& values, std::span<const std::int64_t> order) {
    std::vector<T> ordered(values.size());
    std::transform(order.begin(), order.end(), ordered.begin(), [&](std::int64_t i) { return values[i]; });
    return ordered;
}

/// Rows of a pool; `name` is the setting that says how many.
template <class Draws>
Rows drawn(Draws& draws, std::size_t pool, std::size_t count, const char* name) {
    if (count > 0 && pool == 0)
        throw FileFault(std::string(name) + " is " + std::to_string(count) + ", but the pool is empty");
    return draws.rows(static_cast<std::uint32_t>(pool), count);
}

}  // namespace nepa3d
