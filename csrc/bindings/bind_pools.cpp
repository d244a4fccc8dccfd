#include <pybind11/stl.h>

#include <optional>
#include <utility>

#include "arguments.hpp"
#include "bvh.hpp"
#include "query_pools.hpp"

namespace nepa3d::bindings {

namespace {

/// (N, 3) finite rows in [0, 1].
PointRows uniforms_of(const py::array& array, const char* name, const char* letter) {
    PointRows rows(array, name, letter);
    for (const Vec3 row : rows.span()) {
        if (std::min({row.x, row.y, row.z}) < 0 || std::max({row.x, row.y, row.z}) > 1)
            throw py::value_error(std::string(name) + " must lie in [0, 1]");
    }
    return rows;
}

/// Side and rounds of dilation; a grid of one cell stands for none.
using Grid = std::optional<std::pair<int, int>>;

PoolGrid grid_of(Grid grid, const char* name) {
    if (!grid) return {1, 0};
    between(grid->first, 1, 2048, name);  // 8 GiB of cells
    return {grid->first, at_least(grid->second, 0, name)};
}

struct RayArrays {
    py::array_t<float> hit, t, normal;

    explicit RayArrays(std::size_t size) : RayArrays(static_cast<py::ssize_t>(size)) {}
    explicit RayArrays(py::ssize_t size) : hit(size), t(size), normal({size, py::ssize_t{3}}) {}
    PoolRays pools() {
        const auto size = static_cast<std::size_t>(hit.size());
        return {{hit.mutable_data(), size},
                {t.mutable_data(), size},
                {reinterpret_cast<Vec3*>(normal.mutable_data()), size}};
    }
};

template <class T>
std::span<T> values_of(py::array_t<T>& array) {
    return {array.mutable_data(), static_cast<std::size_t>(array.size())};
}

std::span<Vec3> rows_of(py::array_t<float>& array) {
    return {reinterpret_cast<Vec3*>(array.mutable_data()), static_cast<std::size_t>(array.shape(0))};
}

auto pools(const TriangleBvh& bvh, const py::array& vertices, const py::array& faces, const py::array& surface,
           const py::array& reference, const py::array& anywhere, const py::array& jitter, const py::array& around,
           const py::array& origins, const py::array& directions, float sigma, Grid field, Grid cloud, int max_steps,
           int threads) {
    const PointRows points(vertices, "vertices", "V");
    const FaceRows triangles(faces, "faces", "F");
    if (triangles.span().size() != bvh.size()) throw py::value_error("bvh must be the tree of the faces");
    const PointRows on_surface = uniforms_of(surface, "surface", "N"),
                    on_reference = uniforms_of(reference, "reference", "M");
    const PointRows uniform = uniforms_of(anywhere, "anywhere", "A"), normal(jitter, "jitter", "B");
    const Integers centres(around, "around", "B");
    same_length(normal.span().size(), "jitter", centres.span().size(), "around");
    const PointRows from(origins, "origins", "R"), along(directions, "directions", "R");
    same_length(from.span().size(), "origins", along.span().size(), "directions");
    const PoolSizes sizes{sigma, grid_of(field, "field"), grid_of(cloud, "cloud"), at_least(max_steps, 0, "max_steps")};
    at_least(threads, 1, "threads");
    const PoolDraws draws{on_surface.span(), on_reference.span(), uniform.span(), normal.span(),
                          centres.span(),    from.span(),         along.span()};

    const auto samples = static_cast<py::ssize_t>(draws.surface.size());
    const auto count = static_cast<py::ssize_t>(draws.anywhere.size() + draws.jitter.size());
    const py::ssize_t side = field ? sizes.field.side : 0, three = 3;
    py::array_t<float> point({samples, three}), point_normal({samples, three}), query({count, three});
    py::array_t<float> distance(count), cloud_distance(count), field_distance(field ? count : 0);
    py::array_t<std::uint8_t> occupancy({side, side, side});
    py::array half(py::dtype("float16"), std::vector<py::ssize_t>{side, side, side});
    RayArrays mesh_rays(draws.origins.size()), cloud_rays(cloud ? draws.origins.size() : 0);
    const Pools out{.points = rows_of(point),
                    .normals = rows_of(point_normal),
                    .queries = rows_of(query),
                    .distance = values_of(distance),
                    .cloud_distance = values_of(cloud_distance),
                    .occupancy = values_of(occupancy),
                    .field = {static_cast<std::uint16_t*>(half.mutable_data()), static_cast<std::size_t>(half.size())},
                    .field_distance = values_of(field_distance),
                    .mesh = mesh_rays.pools(),
                    .cloud = cloud_rays.pools()};
    {
        const py::gil_scoped_release unlocked;
        fill_pools(points.span(), triangles.span(), bvh, draws, sizes, out, threads);
    }
    return py::make_tuple(point, point_normal, query, distance, cloud_distance, occupancy, half, field_distance,
                          mesh_rays.hit, mesh_rays.t, mesh_rays.normal, cloud_rays.hit, cloud_rays.t,
                          cloud_rays.normal);
}

}  // namespace

void bind_pools(py::module_& module) {
    module.def("query_pools", &pools, py::arg("bvh"), py::arg("vertices"), py::arg("faces"), py::kw_only(),
               py::arg("surface"), py::arg("reference"), py::arg("anywhere"), py::arg("jitter"), py::arg("around"),
               py::arg("origins"), py::arg("directions"), py::arg("sigma"), py::arg("field"), py::arg("cloud"),
               py::arg("max_steps") = 0, py::arg("threads") = 1);
}

}  // namespace nepa3d::bindings
