#include <pybind11/stl.h>

#include "arguments.hpp"
#include "distance_transform.hpp"
#include "simd/kernels.hpp"
#include "voxel.hpp"

namespace nepa3d::bindings {

namespace {

py::array_t<std::uint8_t> voxelize_points(const py::array& points, int grid, int dilate) {
    const PointRows rows(points, "points", "N");
    between(grid, 1, 2048, "grid");  // 8 GiB of cells
    at_least(dilate, 0, "dilate");
    std::vector<std::uint8_t> occupancy;
    {
        const py::gil_scoped_release unlocked;
        occupancy = voxelize(rows.span(), grid, dilate);
    }
    return to_numpy(std::move(occupancy), {grid, grid, grid});
}

py::array_t<float> transform(const py::array& occupancy, std::array<double, 3> spacing, int threads) {
    if (occupancy.ndim() != 3)
        throw py::value_error("occupancy must have shape (G0, G1, G2), got " + shape_of(occupancy));
    for (const double step : spacing) {
        if (!(step > 0) || !std::isfinite(step))
            throw py::value_error("spacing must be positive, got " + std::to_string(step));
    }
    at_least(threads, 1, "threads");
    const Array<std::uint8_t> cells(occupancy);
    std::array<std::size_t, 3> shape{};
    for (int axis = 0; axis < 3; ++axis) shape[axis] = static_cast<std::size_t>(cells.shape(axis));
    const std::span<const std::uint8_t> view{cells.data(), static_cast<std::size_t>(cells.size())};
    std::vector<float> distance;
    {
        const py::gil_scoped_release unlocked;
        distance = distance_transform(view, shape, spacing, threads);
    }
    return to_numpy(std::move(distance), {cells.shape(0), cells.shape(1), cells.shape(2)});
}

py::array_t<float> sample(const py::array& grid, const py::array& xyz) {
    const Cube<float> values(grid, "grid");
    const PointRows rows(xyz, "xyz", "M");
    std::vector<float> sampled(rows.span().size());
    {
        const py::gil_scoped_release unlocked;
        for (std::size_t i = 0; i < sampled.size(); ++i)
            sampled[i] = trilinear_sample(values.span(), values.side(), rows.span()[i]);
    }
    const auto count = static_cast<py::ssize_t>(sampled.size());
    return to_numpy(std::move(sampled), {count});
}

auto first_hit(const py::array& occupancy, const py::array& origins, const py::array& directions, int max_steps,
               int threads) {
    const Cube<std::uint8_t> cells(occupancy, "occupancy");
    const PointRows from(origins, "origins", "R"), along(directions, "directions", "R");
    at_least(max_steps, 0, "max_steps");
    at_least(threads, 1, "threads");
    const auto origin = from.span(), direction = along.span();
    same_length(origin.size(), "origins", direction.size(), "directions");
    const int steps = max_steps > 0 ? max_steps : 3 * cells.side();
    py::array_t<bool> hit(static_cast<py::ssize_t>(origin.size()));
    py::array_t<float> t(static_cast<py::ssize_t>(origin.size()));
    bool* const hit_out = hit.mutable_data();
    float* const t_out = t.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        std::vector<VoxelHit> found(origin.size());
        VoxelRays(cells.span(), cells.side()).first_hits(origin, direction, steps, found, threads);
        for (std::size_t i = 0; i < found.size(); ++i) {
            hit_out[i] = found[i].hit;
            t_out[i] = found[i].t;
        }
    }
    return py::make_tuple(hit, t);
}

py::array to_half(const py::array& values) {
    const Array<float> from(values);
    py::array to(py::dtype("float16"), std::vector<py::ssize_t>(from.shape(), from.shape() + from.ndim()));
    auto* const out = static_cast<std::uint16_t*>(to.mutable_data());
    const auto count = static_cast<std::size_t>(from.size());
    {
        const py::gil_scoped_release unlocked;
        kernels().to_half(from.data(), out, count);
    }
    return to;
}

}  // namespace

void bind_voxel(py::module_& module) {
    module.def("voxelize", &voxelize_points, py::arg("points"), py::arg("grid"), py::arg("dilate") = 0);
    module.def("distance_transform", &transform, py::arg("occupancy"), py::arg("spacing"), py::kw_only(),
               py::arg("threads") = 1);
    module.def("to_half", &to_half, py::arg("values"));
    module.def("trilinear_sample", &sample, py::arg("grid"), py::arg("xyz"));
    module.def("voxel_first_hit", &first_hit, py::arg("occupancy"), py::arg("origins"), py::arg("directions"),
               py::arg("max_steps") = 0, py::kw_only(), py::arg("threads") = 1);
}

}  // namespace nepa3d::bindings
