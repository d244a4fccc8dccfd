#include <pybind11/typing.h>

#include "arguments.hpp"
#include "mesh.hpp"
#include "mesh_io.hpp"
#include "sampling.hpp"

namespace nepa3d::bindings {

namespace {

struct MeshArrays {
    py::array_t<double> vertices;
    py::array_t<std::int64_t> faces;
};

MeshArrays to_arrays(const Mesh& mesh) {
    py::array_t<double> vertices({static_cast<py::ssize_t>(mesh.vertices.size()), py::ssize_t{3}});
    py::array_t<std::int64_t> faces({static_cast<py::ssize_t>(mesh.faces.size()), py::ssize_t{3}});
    std::copy(mesh.vertices.begin(), mesh.vertices.end(), reinterpret_cast<Vec3d*>(vertices.mutable_data()));
    std::copy(mesh.faces.begin(), mesh.faces.end(), reinterpret_cast<Face*>(faces.mutable_data()));
    return {vertices, faces};
}

template <Mesh (*parse)(std::string_view)>
auto parsed(const py::bytes& text) {
    const auto view = static_cast<std::string_view>(text);
    const Mesh mesh = [&] {
        const py::gil_scoped_release unlocked;
        return parse(view);
    }();
    const MeshArrays arrays = to_arrays(mesh);
    return py::make_tuple(arrays.vertices, arrays.faces);
}

auto clean(const py::array& vertices, const py::array& faces) {
    const Rows<Vec3d, double> points(vertices, "vertices", "V");
    const FaceRows triangles(faces, "faces", "F");
    Dropped dropped;
    const Mesh mesh = [&] {
        const py::gil_scoped_release unlocked;
        return clean_mesh(points.span(), triangles.span(), dropped);
    }();
    py::typing::Dict<py::str, py::int_> counts;
    counts["nonfinite_vertices"] = dropped.nonfinite_vertices;
    counts["nonfinite_faces"] = dropped.nonfinite_faces;
    counts["degenerate_faces"] = dropped.degenerate_faces;
    counts["duplicate_faces"] = dropped.duplicate_faces;
    counts["unreferenced_vertices"] = dropped.unreferenced_vertices;
    const MeshArrays arrays = to_arrays(mesh);
    return py::make_tuple(arrays.vertices, arrays.faces, counts);
}

auto sample(const py::array& vertices, const py::array& faces, const py::array& uniforms) {
    const PointRows points(vertices, "vertices", "V"), numbers(uniforms, "uniforms", "N");
    const FaceRows triangles(faces, "faces", "F");
    for (const Vec3 row : numbers.span()) {
        if (std::min({row.x, row.y, row.z}) < 0 || std::max({row.x, row.y, row.z}) > 1)
            throw py::value_error("uniforms must lie in [0, 1)");
    }
    const auto samples = [&] {
        const py::gil_scoped_release unlocked;
        return sample_surface(points.span(), triangles.span(), numbers.span());
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
    module.def("clean_mesh", &clean, py::arg("vertices"), py::arg("faces"));
    module.def("sample_surface", &sample, py::arg("vertices"), py::arg("faces"), py::arg("uniforms"));
}

}  // namespace nepa3d::bindings
