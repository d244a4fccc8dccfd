#include <pybind11/typing.h>

#include "arguments.hpp"
#include "mesh.hpp"
#include "mesh_io.hpp"
#include "polygons.hpp"
#include "sampling.hpp"

namespace nepa3d::bindings {

namespace {

struct MeshArrays {
    py::array_t<double> vertices;
    py::array_t<std::int64_t> faces;
};

MeshArrays to_arrays(Mesh&& mesh) {
    return {rows_to_numpy<double>(std::move(mesh.vertices)), rows_to_numpy<std::int64_t>(std::move(mesh.faces))};
}

template <auto parse>
auto parse_unlocked(const py::bytes& content) {
    const auto view = static_cast<std::string_view>(content);
    const py::gil_scoped_release unlocked;
    return parse(view);
}

template <Mesh (*parse)(std::string_view)>
auto parsed(const py::bytes& text) {
    const MeshArrays arrays = to_arrays(parse_unlocked<parse>(text));
    return py::make_tuple(arrays.vertices, arrays.faces);
}

template <MeshFile (*parse)(std::string_view)>
auto parsed_file(const py::bytes& content) {
    MeshFile file = parse_unlocked<parse>(content);
    const MeshArrays arrays = to_arrays(std::move(file.mesh));
    return py::make_tuple(arrays.vertices, arrays.faces, py::str(file.repaired));
}

py::array_t<std::int64_t> triangulate(const py::array& vertices, const py::array& corners, const py::array& sizes) {
    const Rows<Vec3d, double> points(vertices, "vertices", "V");
    const Integers all(corners, "corners", "C"), counts(sizes, "sizes", "P");
    for (const std::int64_t corner : all.span()) corner_of(points.span(), corner, "corners");
    std::size_t total = 0, triangles = 0;
    for (const std::int64_t count : counts.span()) {
        if (count < 3) throw py::value_error("sizes must be at least 3, got " + std::to_string(count));
        if (static_cast<std::size_t>(count) > all.span().size() - total)
            throw py::value_error("sizes must add up to the number of corners, " + std::to_string(all.span().size()));
        total += static_cast<std::size_t>(count), triangles += static_cast<std::size_t>(count) - 2;
    }
    if (total != all.span().size())
        throw py::value_error("sizes must add up to the number of corners, " + std::to_string(all.span().size()));
    std::vector<Face> faces(triangles);
    {
        const py::gil_scoped_release unlocked;
        std::size_t from = 0;
        Face* out = faces.data();
        for (const std::int64_t count : counts.span()) {
            const auto size = static_cast<std::size_t>(count);
            triangulate_polygon(points.span(), all.span().subspan(from, size), out);
            from += size, out += size - 2;
        }
    }
    return rows_to_numpy<std::int64_t>(std::move(faces));
}

auto clean(const py::array& vertices, const py::array& faces) {
    const Rows<Vec3d, double> points(vertices, "vertices", "V");
    const FaceRows triangles(faces, "faces", "F");
    Dropped dropped;
    Mesh mesh = [&] {
        const py::gil_scoped_release unlocked;
        return clean_mesh(points.span(), triangles.span(), dropped);
    }();
    py::typing::Dict<py::str, py::int_> counts;
    counts["nonfinite_vertices"] = dropped.nonfinite_vertices;
    counts["nonfinite_faces"] = dropped.nonfinite_faces;
    counts["degenerate_faces"] = dropped.degenerate_faces;
    counts["duplicate_faces"] = dropped.duplicate_faces;
    counts["unreferenced_vertices"] = dropped.unreferenced_vertices;
    const MeshArrays arrays = to_arrays(std::move(mesh));
    return py::make_tuple(arrays.vertices, arrays.faces, counts);
}

py::tuple fit(const py::array& vertices) {
    const Rows<Vec3d, double> points(vertices, "vertices", "V");
    for (std::size_t i = 0; i < points.span().size(); ++i) {
        const Vec3d v = points.span()[i];
        if (!std::isfinite(v.x) || !std::isfinite(v.y) || !std::isfinite(v.z))
            throw py::value_error("vertices must be finite, row " + std::to_string(i) + " is not");
    }
    Fitted fitted;
    {
        const py::gil_scoped_release unlocked;
        fitted = fit_unit_sphere(points.span());
    }
    py::array_t<double> centre(3);
    *reinterpret_cast<Vec3d*>(centre.mutable_data()) = fitted.centre;
    return py::make_tuple(rows_to_numpy<float>(std::move(fitted.vertices)), centre, fitted.scale);
}

auto sample(const py::array& vertices, const py::array& faces, const py::array& uniforms) {
    const PointRows points(vertices, "vertices", "V"), numbers(uniforms, "uniforms", "N");
    const FaceRows triangles(faces, "faces", "F");
    for (const Vec3 row : numbers.span()) {
        if (std::min({row.x, row.y, row.z}) < 0 || std::max({row.x, row.y, row.z}) > 1)
            throw py::value_error("uniforms must lie in [0, 1]");
    }
    const auto samples = [&] {
        const py::gil_scoped_release unlocked;
        return SurfaceSampler(points.span(), triangles.span()).sample(numbers.span());
    }();
    const auto count = static_cast<py::ssize_t>(samples.size());
    py::array_t<float> point({count, py::ssize_t{3}}), normal({count, py::ssize_t{3}});
    py::array_t<std::int64_t> face(count);
    auto* const point_out = reinterpret_cast<Vec3*>(point.mutable_data());
    auto* const normal_out = reinterpret_cast<Vec3*>(normal.mutable_data());
    std::int64_t* const face_out = face.mutable_data();
    for (std::size_t i = 0; i < samples.size(); ++i) {
        point_out[i] = samples[i].point;
        normal_out[i] = samples[i].normal;
        face_out[i] = samples[i].face;
    }
    return py::make_tuple(point, normal, face);
}

}  // namespace

void bind_mesh(py::module_& module) {
    module.def("parse_obj", &parsed<parse_obj>, py::arg("text"));
    module.def("parse_off", &parsed<parse_off>, py::arg("text"));
    module.def("parse_ply", &parsed_file<parse_ply>, py::arg("content"));
    module.def("parse_stl", &parsed_file<parse_stl>, py::arg("content"));
    module.def("triangulate_polygons", &triangulate, py::arg("vertices"), py::arg("corners"), py::arg("sizes"));
    module.def("clean_mesh", &clean, py::arg("vertices"), py::arg("faces"));
    module.def("fit_unit_sphere", &fit, py::arg("vertices"));
    module.def("sample_surface", &sample, py::arg("vertices"), py::arg("faces"), py::arg("uniforms"));
}

}  // namespace nepa3d::bindings
