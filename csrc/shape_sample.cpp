#include "shape_sample.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include "kdtree.hpp"
#include "ordering.hpp"
#include "vec3.hpp"
#include "voxel.hpp"

namespace nepa3d {

namespace {

using Rows = std::vector<std::uint32_t>;

constexpr std::uint32_t exponent = 0x7f800000;  // of a float's bits; all set: it is not finite

/// The pools of a file, checked as they are opened: all of a letter (N, P, R) must have the same length.
class Pools {
public:
    explicit Pools(const Npz& file) : file_(file) {}

    bool contains(const char* key) const { return file_.contains(key); }
    std::size_t length(char letter) const { return sizes_[letter == 'N' ? 0 : letter == 'P' ? 1 : 2].rows; }

    Array vectors(const char* key, char letter) { return open(key, letter, 2, "f"); }
    Array scalars(const char* key, char letter) { return open(key, letter, 1, "f"); }
    Array flags(const char* key, char letter) { return open(key, letter, 1, "fbiu"); }

private:
    struct Size {
        const char* key = nullptr;
        std::size_t rows = 0;
    };

    Array open(const char* key, char letter, int rank, std::string_view kinds) {
        Array array = file_.array(key);
        const ArrayHeader& header = array.header();
        const std::string name(key);
        if (header.rank != rank || (rank == 2 && header.shape[1] != 3))
            throw FileFault(name + " must have shape (" + letter + (rank == 2 ? ", 3)" : ",)"));
        if (kinds.find(header.kind) == std::string_view::npos)
            throw FileFault(name + " must have a dtype of kind " + std::string(kinds) + ", got " + header.kind);
        Size& size = sizes_[letter == 'N' ? 0 : letter == 'P' ? 1 : 2];
        if (size.key == nullptr) size = {key, header.shape[0]};
        if (size.rows != header.shape[0])
            throw FileFault(name + " has " + letter + " = " + std::to_string(header.shape[0]) + ", " + size.key +
                            " has " + letter + " = " + std::to_string(size.rows));
        return array;
    }

    const Npz& file_;
    Size sizes_[3];
};

std::vector<Vec3> vectors_of(const Array& array, std::span<const std::uint32_t> rows) {
    std::vector<Vec3> values(rows.size());
    array.gather(rows, 3, reinterpret_cast<float*>(values.data()));
    return values;
}

std::vector<float> scalars_of(const Array& array, std::span<const std::uint32_t> rows) {
    std::vector<float> values(rows.size());
    array.gather(rows, 1, values.data());
    return values;
}

std::vector<Vec3> all_vectors_of(const Array& array) {
    const std::vector<float> numbers = array.floats(3);
    std::vector<Vec3> values(numbers.size() / 3);
    if (!values.empty()) std::memcpy(values.data(), numbers.data(), values.size() * sizeof(Vec3));
    return values;
}

template <class T>
std::vector<T> in_order(const std::vector<T>& values, std::span<const std::int64_t> order) {
    std::vector<T> ordered(values.size());
    std::transform(order.begin(), order.end(), ordered.begin(), [&](std::int64_t i) { return values[i]; });
    return ordered;
}

void require_finite(std::span<const Vec3> points, const char* key) {
    for (const Vec3 p : points) {
        if (!std::isfinite(p.x) || !std::isfinite(p.y) || !std::isfinite(p.z))
            throw FileFault(std::string(key) + " is not finite");
    }
}

/// The cloud of the voxel view, and of distances that are stored as invalid.
struct Cloud {
    std::vector<Vec3> points, normals;
};

Cloud read_cloud(Pools& pools, bool with_normals) {
    Cloud cloud{all_vectors_of(pools.vectors("pc_xyz", 'N')), {}};
    require_finite(cloud.points, "pc_xyz");
    if (cloud.points.empty()) throw FileFault("pc_xyz is empty");
    if (with_normals) cloud.normals = all_vectors_of(pools.vectors("pc_n", 'N'));
    return cloud;
}

std::vector<Nearest> nearest_of(const std::vector<Vec3>& points, std::span<const Vec3> queries) {
    std::vector<Nearest> found(queries.size());
    KdTree(points).nearest(queries, found, 1);
    return found;
}

/// The voxel view of a file: its grid, made anew from the point cloud.
class VoxelView {
public:
    VoxelView(Pools& pools, const SampleSettings& settings)
        : cloud_(read_cloud(pools, true)),
          grid_(settings.voxel_grid),
          max_steps_(settings.voxel_max_steps > 0 ? settings.voxel_max_steps : 3 * grid_),
          occupancy_(voxelize(cloud_.points, grid_, settings.voxel_dilate)) {}

    /// What distance_transform gives at the queries' cells, by the nearest occupied cells: whole numbers below 2^24
    /// apart.
    std::vector<float> distances(std::span<const Vec3> queries) const {
        const auto side = static_cast<std::size_t>(grid_);
        std::vector<Vec3> occupied, cells(queries.size());
        for (std::size_t cell = 0; cell < occupancy_.size(); ++cell) {
            if (occupancy_[cell])
                occupied.push_back({static_cast<float>(cell / (side * side)), static_cast<float>(cell / side % side),
                                    static_cast<float>(cell % side)});
        }
        const double spacing = 2.0 / grid_;
        const float step = static_cast<float>(spacing), last = static_cast<float>(grid_ - 1);
        const auto cell = [&](float x) { return std::clamp(std::floor((x + 1) / step), 0.0f, last); };
        std::transform(queries.begin(), queries.end(), cells.begin(), [&](Vec3 q) {
            return Vec3{cell(q.x), cell(q.y), cell(q.z)};
        });
        const std::vector<Nearest> nearest = nearest_of(occupied, cells);
        std::vector<float> distances(queries.size());
        for (std::size_t i = 0; i < distances.size(); ++i) {
            const Vec3 apart = occupied[nearest[i].index] - cells[i];
            distances[i] = static_cast<float>(std::sqrt(static_cast<double>(dot(apart, apart))) * spacing);
        }
        return distances;
    }

    void cast(std::span<const Vec3> origins, std::span<const Vec3> directions, std::vector<float>& hit,
              std::vector<float>& t, std::vector<Vec3>& normal) const {
        std::vector<VoxelHit> found(origins.size());
        VoxelRays(occupancy_, grid_).first_hits(origins, directions, max_steps_, found, 1);
        hit.assign(found.size(), 0), t.assign(found.size(), 0), normal.assign(found.size(), Vec3{});
        std::vector<Vec3> places;
        for (std::size_t i = 0; i < found.size(); ++i) {
            if (!found[i].hit) continue;
            hit[i] = 1, t[i] = found[i].t;
            places.push_back(origins[i] + found[i].t * directions[i]);
        }
        const std::vector<Nearest> nearest = nearest_of(cloud_.points, places);
        for (std::size_t i = 0, k = 0; i < found.size(); ++i) {
            if (found[i].hit) normal[i] = cloud_.normals[nearest[k++].index];
        }
    }

private:
    Cloud cloud_;
    int grid_, max_steps_;
    std::vector<std::uint8_t> occupancy_;
};

/// Whether no distance is negative or not finite.
bool all_valid(const std::vector<float>& distances) {
    std::uint32_t invalid = 0;  // looking at all of them is faster than stopping early
    for (const float d : distances) invalid |= !(d >= 0) | ((std::bit_cast<std::uint32_t>(d) & exponent) == exponent);
    return invalid == 0;
}

/// Distances to the cloud: stored, recomputed where a value of the pool is marked invalid. Of a cache from before they
/// were stored, pt_dist_pool.
std::vector<float> cloud_distances(Pools& pools, const Rows& rows, std::span<const Vec3> queries) {
    if (pools.contains("pt_dist_pc_pool")) {
        const Array stored = pools.scalars("pt_dist_pc_pool", 'P');
        if (all_valid(stored.floats(1))) return scalars_of(stored, rows);
    } else if (pools.contains("pt_dist_pool")) {
        return scalars_of(pools.scalars("pt_dist_pool", 'P'), rows);
    }
    std::vector<float> distances(rows.size());
    const std::vector<Nearest> nearest = nearest_of(read_cloud(pools, false).points, queries);
    std::transform(nearest.begin(), nearest.end(), distances.begin(), [](Nearest n) { return n.distance; });
    return distances;
}

std::vector<float> distances(Pools& pools, Backend backend, const VoxelView* voxel, const Rows& rows,
                             std::span<const Vec3> queries) {
    const auto stored = [&](const char* key) { return scalars_of(pools.scalars(key, 'P'), rows); };
    switch (backend) {
        case Backend::mesh: return stored("pt_dist_pool");
        case Backend::udfgrid: return stored(pools.contains("pt_dist_udf_pool") ? "pt_dist_udf_pool" : "pt_dist_pool");
        case Backend::voxel: return voxel->distances(queries);
        default: return cloud_distances(pools, rows, queries);
    }
}

template <class Draws>
Rows drawn(Draws& draws, std::size_t pool, std::size_t count, const char* name) {
    if (count > 0 && pool == 0)
        throw FileFault(std::string(name) + " is " + std::to_string(count) + ", but the pool is empty");
    return draws.rows(static_cast<std::uint32_t>(pool), count);
}

void put(std::span<float> features, std::size_t token, std::size_t column, Vec3 v) {
    float* const at = features.data() + token * feature_dim + column;
    at[0] = v.x, at[1] = v.y, at[2] = v.z;
}

template <class Draws>
void add_points(Pools& pools, const SampleSettings& s, const VoxelView* voxel, Draws& draws, Tokens tokens) {
    const Array xyz_pool = pools.vectors("pt_xyz_pool", 'P');
    Rows rows = drawn(draws, pools.length('P'), s.n_point, "n_point");
    std::vector<Vec3> xyz = vectors_of(xyz_pool, rows);
    require_finite(xyz, "pt_xyz_pool");
    const std::vector<std::int64_t> order = morton_order(xyz);
    rows = in_order(rows, order), xyz = in_order(xyz, order);
    const std::vector<float> distance = distances(pools, s.backend, voxel, rows, xyz);
    const std::size_t stride = s.qa ? 2 : 1, answer = stride - 1;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t token = i * stride;
        put(tokens.features, token, 0, xyz[i]);
        tokens.features[(token + answer) * feature_dim + 10] = distance[i];
        tokens.types[token] = static_cast<std::int64_t>(s.qa ? Token::q_point : Token::point);
        if (s.qa) tokens.types[token + 1] = static_cast<std::int64_t>(Token::a_point);
    }
}

template <class Draws>
void add_rays(Pools& pools, const SampleSettings& s, const VoxelView* voxel, Draws& draws, Tokens tokens) {
    const Array origins = pools.vectors("ray_o_pool", 'R'), directions = pools.vectors("ray_d_pool", 'R');
    Rows rows = drawn(draws, pools.length('R'), s.n_ray, "n_ray");
    const std::vector<Vec3> unordered = vectors_of(directions, rows);
    require_finite(unordered, "ray_d_pool");
    const std::vector<std::int64_t> order = ray_direction_order(unordered);
    rows = in_order(rows, order);
    const std::vector<Vec3> origin = vectors_of(origins, rows), direction = in_order(unordered, order);
    std::vector<float> hit, t;
    std::vector<Vec3> normal;
    if (voxel != nullptr) {
        require_finite(origin, "ray_o_pool");
        voxel->cast(origin, direction, hit, t, normal);
    } else {
        const bool of_cloud = s.backend == Backend::pointcloud && pools.contains("ray_hit_pc_pool");
        hit = scalars_of(pools.flags(of_cloud ? "ray_hit_pc_pool" : "ray_hit_pool", 'R'), rows);
        t = scalars_of(pools.scalars(of_cloud ? "ray_t_pc_pool" : "ray_t_pool", 'R'), rows);
        normal = vectors_of(pools.vectors(of_cloud ? "ray_n_pc_pool" : "ray_n_pool", 'R'), rows);
    }
    const std::size_t stride = s.qa ? 2 : 1, answer = stride - 1;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t question = i * stride, reply = question + answer;
        const bool struck = hit[i] > 0.5f;
        put(tokens.features, question, 3, origin[i]);
        put(tokens.features, question, 6, direction[i]);
        if (struck) put(tokens.features, reply, 0, origin[i] + t[i] * direction[i]);
        tokens.features[reply * feature_dim + 9] = t[i];
        tokens.features[reply * feature_dim + 11] = hit[i];
        if (struck) put(tokens.features, reply, 12, normal[i]);
        tokens.types[question] = static_cast<std::int64_t>(s.qa ? Token::q_ray : Token::ray);
        if (s.qa) tokens.types[reply] = static_cast<std::int64_t>(Token::a_ray);
    }
}

template <class Draws>
void read(const std::string& path, const SampleSettings& s, Draws& draws, bool rays_missing, Tokens tokens) {
    const Npz file(path);
    Pools pools(file);
    std::optional<VoxelView> grid;
    if (s.backend == Backend::voxel) grid.emplace(pools, s);
    const VoxelView* const voxel = grid ? &*grid : nullptr;
    std::fill(tokens.features.begin(), tokens.features.end(), 0.0f);
    tokens.types.front() = static_cast<std::int64_t>(Token::bos);
    if (s.eos) tokens.types.back() = static_cast<std::int64_t>(Token::eos);
    const std::size_t stride = s.qa ? 2 : 1;
    const auto part = [&](std::size_t first, std::size_t queries) {
        return Tokens{tokens.features.subspan(first * feature_dim, queries * stride * feature_dim),
                      tokens.types.subspan(first, queries * stride)};
    };
    if (s.n_point > 0) add_points(pools, s, voxel, draws, part(1, s.n_point));
    const Tokens rays = part(1 + s.n_point * stride, s.n_ray);
    if (rays_missing) std::fill(rays.types.begin(), rays.types.end(), static_cast<std::int64_t>(Token::missing_ray));
    else if (s.n_ray > 0) add_rays(pools, s, voxel, draws, rays);
    std::uint32_t odd = 0;  // looking at all of them is faster than stopping early
    for (const float x : tokens.features) odd |= (std::bit_cast<std::uint32_t>(x) & exponent) == exponent;
    if (odd) throw FileFault("the sample has values that are not finite");
}

bool has_no_rays(const SampleSettings& s) {
    return s.force_missing_ray || s.backend == Backend::pointcloud_noray || s.backend == Backend::udfgrid;
}

}  // namespace

void read_sample(const std::string& path, const SampleSettings& settings, TrainingDraws draws, Tokens tokens) {
    const bool dropped = draws.uniform() < settings.drop_ray_prob;
    read(path, settings, draws, dropped || has_no_rays(settings), tokens);
}

void read_sample(const std::string& path, const SampleSettings& settings, EvaluationDraws draws, Tokens tokens) {
    read(path, settings, draws, has_no_rays(settings), tokens);
}

}  // namespace nepa3d
