#include "pool_view.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "kdtree.hpp"
#include "ordering.hpp"
#include "voxel.hpp"

namespace nepa3d {

namespace {

constexpr double uniform_steps = 0x1p23;  // of the uniform draw: it is 2 u - 1, u of 24 random bits
constexpr std::size_t fewest_uniform = 64;  // points by which a uniform part is told
constexpr std::uint32_t exponent = 0x7f800000;  // of a float's bits; all set: it is not finite

std::vector<Vec3> all_vectors_of(const Array& array) {
    const std::vector<float> numbers = array.floats(3);
    std::vector<Vec3> values(numbers.size() / 3);
    if (!values.empty()) std::memcpy(values.data(), numbers.data(), values.size() * sizeof(Vec3));
    return values;
}

std::vector<Vec3> cloud_points(Pools& pools) {
    std::vector<Vec3> points = all_vectors_of(pools.vectors("pc_xyz", 'N'));
    require_finite(points, "pc_xyz");
    if (points.empty()) throw FileFault("pc_xyz is empty");
    return points;
}

std::vector<Nearest> nearest_of(const std::vector<Vec3>& points, Points queries) {
    std::vector<Nearest> found(queries.size());
    KdTree(points).nearest(queries, found, 1);
    return found;
}

/// Whether no distance is negative or not finite.
bool all_valid(const std::vector<float>& distances) {
    std::uint32_t invalid = 0;  // looking at all of them is faster than stopping early
    for (const float d : distances) invalid |= !(d >= 0) | ((std::bit_cast<std::uint32_t>(d) & exponent) == exponent);
    return invalid == 0;
}

std::vector<float> cloud_distances(Pools& pools, Points queries) {
    std::vector<float> distances(queries.size());
    const std::vector<Nearest> nearest = nearest_of(cloud_points(pools), queries);
    std::transform(nearest.begin(), nearest.end(), distances.begin(), [](Nearest n) { return n.distance; });
    return distances;
}

std::vector<float> distances(OpenShape& shape, const ViewRow& view, const Rows& rows, Points queries) {
    if (view.voxels) return shape.voxel.value().distances(queries);
    Pools& pools = shape.pools;
    for (const StoredDistances& stored : view.distances) {
        if (!pools.contains(stored.key)) continue;
        const Array array = pools.scalars(stored.key, 'P');
        if (stored.recompute_invalid && !all_valid(array.floats(1))) return cloud_distances(pools, queries);
        return scalars_of(array, rows);
    }
    if (view.cloud_distances) return cloud_distances(pools, queries);
    throw FileFault(view.distances.back().key + " is missing");
}

}  // namespace

Array Pools::open(const std::string& key, char letter, int rank, std::string_view kinds) {
    Array array = file_.array(key);
    const ArrayHeader& header = array.header();
    if (header.rank != rank || (rank == 2 && header.shape[1] != 3))
        throw FileFault(key + " must have shape (" + letter + (rank == 2 ? ", 3)" : ",)"));
    if (kinds.find(header.kind) == std::string_view::npos)
        throw FileFault(key + " must have a dtype of kind " + std::string(kinds) + ", got " + header.kind);
    Size& size = sizes_[letter == 'N' ? 0 : letter == 'P' ? 1 : 2];
    if (size.key.empty()) size = {key, header.shape[0]};
    if (size.rows != header.shape[0])
        throw FileFault(key + " has " + letter + " = " + std::to_string(header.shape[0]) + ", " + size.key + " has " +
                        letter + " = " + std::to_string(size.rows));
    return array;
}

VoxelView::VoxelView(Pools& pools, const VoxelGrid& grid)
    : points_(cloud_points(pools)),
      normals_(all_vectors_of(pools.vectors("pc_n", 'N'))),
      grid_(grid.side),
      max_steps_(grid.max_steps > 0 ? grid.max_steps : 3 * grid_),
      occupancy_(voxelize(points_, grid_, grid.dilate)) {}

/// By the nearest occupied cells: whole numbers below 2^24 apart.
std::vector<float> VoxelView::distances(Points queries) const {
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
    std::transform(queries.begin(), queries.end(), cells.begin(),
                   [&](Vec3 q) { return Vec3{cell(q.x), cell(q.y), cell(q.z)}; });
    const std::vector<Nearest> nearest = nearest_of(occupied, cells);
    std::vector<float> distances(queries.size());
    for (std::size_t i = 0; i < distances.size(); ++i) {
        const Vec3 apart = occupied[nearest[i].index] - cells[i];
        distances[i] = static_cast<float>(std::sqrt(static_cast<double>(dot(apart, apart))) * spacing);
    }
    return distances;
}

void VoxelView::cast(Points origins, Points directions, std::vector<float>& hit, std::vector<float>& t,
                     std::vector<Vec3>& normal) const {
    std::vector<VoxelHit> found(origins.size());
    VoxelRays(occupancy_, grid_).first_hits(origins, directions, max_steps_, found, 1);
    hit.assign(found.size(), 0), t.assign(found.size(), 0), normal.assign(found.size(), Vec3{});
    std::vector<Vec3> places;
    for (std::size_t i = 0; i < found.size(); ++i) {
        if (!found[i].hit) continue;
        hit[i] = 1, t[i] = found[i].t;
        places.push_back(origins[i] + found[i].t * directions[i]);
    }
    const std::vector<Nearest> nearest = nearest_of(points_, places);
    for (std::size_t i = 0, k = 0; i < found.size(); ++i) {
        if (found[i].hit) normal[i] = normals_[nearest[k++].index];
    }
}

OpenShape::OpenShape(const NpzPlace& place, const std::optional<VoxelGrid>& grid) : file(place), pools(file) {
    if (grid) voxel.emplace(pools, *grid);
}

std::size_t questions_of(const Array& xyz_pool, bool uniform) {
    if (!uniform) return xyz_pool.header().shape[0];
    const std::vector<float> numbers = xyz_pool.floats(3);
    const auto fine = [](float x) { return std::floor(x * uniform_steps) != x * uniform_steps; };
    const auto end = std::find_if(numbers.begin(), numbers.end(), fine);
    const auto count = static_cast<std::size_t>(end - numbers.begin()) / 3;
    const auto odd = std::count_if(numbers.begin(), numbers.begin() + static_cast<std::ptrdiff_t>(3 * count),
                                   [](float x) { return std::fmod(std::abs(x * uniform_steps), 2.0) == 1; });
    const double share = count > 0 ? static_cast<double>(odd) / static_cast<double>(3 * count) : 0;
    if (count < fewest_uniform || share <= 0.25 || share >= 0.75)
        throw FileFault("questions 'uniform': pt_xyz_pool does not begin with at least " +
                        std::to_string(fewest_uniform) +
                        " points of this package's uniform draw; make the cache again with a pt_surface_ratio below 1, "
                        "or ask in the whole pool");
    return count;
}

std::vector<Vec3> along_the_curve(const Array& xyz_pool, Rows& rows) {
    std::vector<Vec3> xyz = vectors_of(xyz_pool, rows);
    require_finite(xyz, "pt_xyz_pool");
    const std::vector<std::int64_t> order = morton_order(xyz);
    rows = in_order(rows, order);
    return in_order(xyz, order);
}

AnsweredPoints answered_points(OpenShape& shape, const ViewRow& view, const Array& xyz_pool, Rows rows) {
    std::vector<Vec3> xyz = along_the_curve(xyz_pool, rows);
    std::vector<float> distance = distances(shape, view, rows, xyz);
    return {std::move(xyz), std::move(distance)};
}

const std::string& ray_suffix(const Pools& pools, const ViewRow& view) {
    const auto found = std::find_if(view.rays.begin(), view.rays.end(),
                                    [&](const std::string& suffix) { return pools.contains("ray_hit_" + suffix); });
    return found == view.rays.end() ? view.rays.back() : *found;
}

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

void require_finite(Points points, const char* key) {
    for (const Vec3 p : points) {
        if (!std::isfinite(p.x) || !std::isfinite(p.y) || !std::isfinite(p.z))
            throw FileFault(std::string(key) + " is not finite");
    }
}

void require_finite_sample(std::span<const float> features) {
    std::uint32_t odd = 0;  // looking at all of them is faster than stopping early
    for (const float x : features) odd |= (std::bit_cast<std::uint32_t>(x) & exponent) == exponent;
    if (odd) throw FileFault("the sample has values that are not finite");
}

}  // namespace nepa3d
