#include "arguments.hpp"
#include "bvh.hpp"

namespace nepa3d::bindings {

namespace {

auto cast_rays(const TriangleBvh& bvh, const py::array& origins, const py::array& directions, int threads) {
    const PointRows from(origins, "origins", "R"), along(directions, "directions", "R");
    at_least(threads, 1, "threads");
    const auto origin = from.span(), direction = along.span();
    same_length(origin.size(), "origins", direction.size(), "directions");
    const auto rays = static_cast<py::ssize_t>(origin.size());
    py::array_t<float> t(rays), barycentric({rays, py::ssize_t{3}});
    py::array_t<std::int64_t> face(rays);
    float* const t_out = t.mutable_data();
    float* const barycentric_out = barycentric.mutable_data();
    std::int64_t* const face_out = face.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        std::vector<RayHit> found(origin.size());
        bvh.first_hits(origin, direction, found, threads);
        for (std::size_t i = 0; i < found.size(); ++i) {
            const RayHit& hit = found[i];
            t_out[i] = hit.t;
            face_out[i] = hit.face;
            barycentric_out[3 * i] = hit.face < 0 ? 0 : 1 - hit.u - hit.v;
            barycentric_out[3 * i + 1] = hit.u;
            barycentric_out[3 * i + 2] = hit.v;
        }
    }
    return py::make_tuple(t, face, barycentric);
}

auto closest_point(const TriangleBvh& bvh, const py::array& queries, int threads) {
    const PointRows rows(queries, "queries", "M");
    at_least(threads, 1, "threads");
    const auto query = rows.span();
    const auto count = static_cast<py::ssize_t>(query.size());
    py::array_t<float> distance(count), point({count, py::ssize_t{3}});
    py::array_t<std::int64_t> face(count);
    float* const distance_out = distance.mutable_data();
    auto* const point_out = reinterpret_cast<Vec3*>(point.mutable_data());
    std::int64_t* const face_out = face.mutable_data();
    {
        const py::gil_scoped_release unlocked;
        std::vector<SurfacePoint> found(query.size());
        bvh.closest_points(query, found, threads);
        for (std::size_t i = 0; i < found.size(); ++i) {
            distance_out[i] = found[i].distance;
            face_out[i] = found[i].face;
            point_out[i] = found[i].point;
        }
    }
    return py::make_tuple(distance, face, point);
}

}  // namespace

void bind_bvh(py::module_& module) {
    py::class_<TriangleBvh>(module, "TriangleBvh")
        .def(py::init([](const py::array& vertices, const py::array& faces, int threads) {
                 const PointRows points(vertices, "vertices", "V");
                 const FaceRows triangles(faces, "faces", "F");
                 at_least(threads, 1, "threads");
                 const py::gil_scoped_release unlocked;
                 return TriangleBvh(points.span(), triangles.span(), threads);
             }),
             py::arg("vertices"), py::arg("faces"), py::kw_only(), py::arg("threads") = 1)
        .def("__len__", &TriangleBvh::size)
        .def_property_readonly("nbytes", &TriangleBvh::nbytes)
        .def("cast_rays", &cast_rays, py::arg("origins"), py::arg("directions"), py::kw_only(), py::arg("threads") = 1)
        .def("closest_point", &closest_point, py::arg("queries"), py::kw_only(), py::arg("threads") = 1);
}

}  // namespace nepa3d::bindings
