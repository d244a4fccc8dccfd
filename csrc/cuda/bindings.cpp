/// The Python side of `nepa3d._cuda` and of its twin on the CPU, `nepa3d._cuda_host`: addresses in, nothing out.
/// nepa3d.ops.cuda checks the arguments.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>

#include "launch.hpp"

namespace py = pybind11;

namespace nepa3d::cuda {

namespace {

using Address = std::uintptr_t;

template <class T>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

Ragged ragged(Address offsets, std::int32_t shapes, std::int32_t rows) {
    return {at<const std::int32_t>(offsets), shapes, rows};
}

Bvh bvh(Address nodes, Address triangles, Address roots) {
    return {at<Node>(nodes), at<Triangle>(triangles), at<std::int32_t>(roots)};
}

void bind_grids(py::module_& module) {
    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def(
        "voxelize",
        [](Address points, Ragged point_rows, std::int32_t side, Address occupancy, int device, Address stream) {
            const OnDevice on(device);
            voxelize({at<const Vec3>(points), point_rows, side, at<std::uint8_t>(occupancy)}, at<void>(stream));
        },
        unlocked, py::arg("points"), py::arg("point_rows"), py::arg("side"), py::arg("occupancy"), py::arg("device"),
        py::arg("stream"));
    module.def(
        "dilate",
        [](Address from, Address to, std::int32_t side, std::int32_t cells, int device, Address stream) {
            const OnDevice on(device);
            dilate({at<const std::uint8_t>(from), at<std::uint8_t>(to), side}, cells, at<void>(stream));
        },
        unlocked, py::arg("from"), py::arg("to"), py::arg("side"), py::arg("cells"), py::arg("device"),
        py::arg("stream"));
    py::class_<Transforms>(module, "Transforms", py::module_local(), "Grids to transform, and where to.")
        .def(py::init([](Address occupancy, std::int32_t grids, std::array<std::int32_t, 3> shape,
                         std::array<double, 3> spacing, Address distance) {
                 return Transforms{at<const std::uint8_t>(occupancy), grids, shape, spacing, at<float>(distance)};
             }),
             py::arg("occupancy"), py::arg("grids"), py::arg("shape"), py::arg("spacing"), py::arg("distance"))
        .def("scratch_bytes", &transform_scratch_bytes);
    module.def(
        "distance_transform",
        [](const Transforms& batch, Address scratch, std::size_t scratch_bytes, int device, Address stream) {
            const OnDevice on(device);
            distance_transform(batch, at<void>(scratch), scratch_bytes, at<void>(stream));
        },
        unlocked, py::arg("batch"), py::arg("scratch"), py::arg("scratch_bytes"), py::arg("device"), py::arg("stream"));
    module.def(
        "trilinear_sample",
        [](Address values, std::int32_t side, Address points, Ragged point_rows, Address found, int device,
           Address stream) {
            const OnDevice on(device);
            trilinear_sample({at<const float>(values), side, at<const Vec3>(points), point_rows, at<float>(found)},
                             at<void>(stream));
        },
        unlocked, py::arg("values"), py::arg("side"), py::arg("points"), py::arg("point_rows"), py::arg("found"),
        py::arg("device"), py::arg("stream"));
    module.def(
        "walk_voxels",
        [](Address occupancy, std::int32_t side, Address origins, Address directions, Ragged ray_rows,
           std::int32_t max_steps, Address hit, Address t, int device, Address stream) {
            const OnDevice on(device);
            walk_voxels({at<const std::uint8_t>(occupancy), side, at<const Vec3>(origins), at<const Vec3>(directions),
                         ray_rows, max_steps, at<bool>(hit), at<float>(t)},
                        at<void>(stream));
        },
        unlocked, py::arg("occupancy"), py::arg("side"), py::arg("origins"), py::arg("directions"), py::arg("ray_rows"),
        py::arg("max_steps"), py::arg("hit"), py::arg("t"), py::arg("device"), py::arg("stream"));
}

void bind_orders(py::module_& module) {
    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def(
        "ordering_scratch_bytes",
        [](std::int32_t rows, std::int32_t shapes, int device) {
            const OnDevice on(device);
            return ordering_bytes(rows, shapes);
        },
        unlocked, py::arg("rows"), py::arg("shapes"), py::arg("device"));
    const auto bind_order = [&](const char* name, auto* launch) {
        module.def(
            name,
            [launch](Address values, Ragged rows, Address order, Address scratch, std::size_t scratch_bytes, int device,
                     Address stream) {
                const OnDevice on(device);
                Ordering batch{};
                batch.values = at<const Vec3>(values), batch.rows = rows, batch.order = at<std::int64_t>(order);
                launch(batch, at<void>(scratch), scratch_bytes, at<void>(stream));
            },
            unlocked, py::arg("values"), py::arg("rows"), py::arg("order"), py::arg("scratch"),
            py::arg("scratch_bytes"), py::arg("device"), py::arg("stream"));
    };
    bind_order("morton_order", &morton_order);
    bind_order("ray_direction_order", &ray_direction_order);
}

void bind_clouds(py::module_& module) {
    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def(
        "nearest",
        [](Address points, Ragged point_rows, Address queries, Ragged query_rows, Address distance, Address index,
           int device, Address stream) {
            const OnDevice on(device);
            nearest({at<const Vec3>(points), point_rows, at<const Vec3>(queries), query_rows, at<float>(distance),
                     at<std::int64_t>(index)},
                    at<void>(stream));
        },
        unlocked, py::arg("points"), py::arg("point_rows"), py::arg("queries"), py::arg("query_rows"),
        py::arg("distance"), py::arg("index"), py::arg("device"), py::arg("stream"));
    module.def(
        "nearest_in_tree_scratch_bytes",
        [](std::int32_t points, std::int32_t queries, std::int32_t shapes, int device) {
            const OnDevice on(device);
            return nearest_in_tree_bytes(points, queries, shapes);
        },
        unlocked, py::arg("points"), py::arg("queries"), py::arg("shapes"), py::arg("device"));
    module.def(
        "nearest_in_tree",
        [](Address points, Ragged point_rows, Address queries, Ragged query_rows, Address distance, Address index,
           Address visits, Address scratch, std::size_t scratch_bytes, int device, Address stream) {
            const OnDevice on(device);
            NearestInTree batch{};
            batch.points = at<const Vec3>(points), batch.point_rows = point_rows;
            batch.queries = at<const Vec3>(queries), batch.query_rows = query_rows;
            batch.distance = at<float>(distance), batch.index = at<std::int64_t>(index);
            batch.visits = at<std::int64_t>(visits);
            nearest_in_tree(batch, at<void>(scratch), scratch_bytes, at<void>(stream));
        },
        unlocked, py::arg("points"), py::arg("point_rows"), py::arg("queries"), py::arg("query_rows"),
        py::arg("distance"), py::arg("index"), py::arg("visits"), py::arg("scratch"), py::arg("scratch_bytes"),
        py::arg("device"), py::arg("stream"));
    module.def(
        "sample_surface",
        [](Address vertices, Ragged vertex_rows, Address faces, Ragged face_rows, Address uniforms, Ragged sample_rows,
           Address cumulative, Address last, Address total, Address point, Address normal, Address face, int device,
           Address stream) {
            const OnDevice on(device);
            sample_surface({at<const Vec3>(vertices), vertex_rows, at<const Corners>(faces), face_rows,
                            at<const Vec3>(uniforms), sample_rows, at<double>(cumulative), at<std::int32_t>(last),
                            at<double>(total), at<Vec3>(point), at<Vec3>(normal), at<std::int64_t>(face)},
                           at<void>(stream));
        },
        unlocked, py::arg("vertices"), py::arg("vertex_rows"), py::arg("faces"), py::arg("face_rows"),
        py::arg("uniforms"), py::arg("sample_rows"), py::arg("cumulative"), py::arg("last"), py::arg("total"),
        py::arg("point"), py::arg("normal"), py::arg("face"), py::arg("device"), py::arg("stream"));
}

void bind(py::module_& module) {
    py::class_<Ragged>(module, "Ragged", py::module_local(), "Where the rows of each shape begin.")
        .def(py::init(&ragged), py::arg("offsets"), py::arg("shapes"), py::arg("rows"));
    py::class_<Bvh>(module, "Bvh", py::module_local(), "The trees of a batch of meshes.")
        .def(py::init(&bvh), py::arg("nodes"), py::arg("triangles"), py::arg("roots"));
    module.attr("NODE_BYTES") = sizeof(Node);
    module.attr("TRIANGLE_BYTES") = sizeof(Triangle);

    const py::call_guard<py::gil_scoped_release> unlocked;
    module.def(
        "bvh_scratch_bytes",
        [](std::int32_t faces, std::int32_t shapes, int device) {
            const OnDevice on(device);
            return bvh_scratch_bytes(faces, shapes);
        },
        unlocked, py::arg("faces"), py::arg("shapes"), py::arg("device"));
    module.def(
        "build_bvh",
        [](Address vertices, Ragged vertex_rows, Address faces, Ragged face_rows, Bvh bvh, Address scratch,
           std::size_t scratch_bytes, int device, Address stream) {
            const OnDevice on(device);
            BvhBuild build{};
            build.vertices = at<const Vec3>(vertices), build.vertex_rows = vertex_rows;
            build.faces = at<const Corners>(faces), build.face_rows = face_rows;
            build.bvh = bvh;
            build_bvh(build, at<void>(scratch), scratch_bytes, at<void>(stream));
        },
        unlocked, py::arg("vertices"), py::arg("vertex_rows"), py::arg("faces"), py::arg("face_rows"), py::arg("bvh"),
        py::arg("scratch"), py::arg("scratch_bytes"), py::arg("device"), py::arg("stream"));
    module.def(
        "first_hits",
        [](Bvh bvh, Address origins, Address directions, Ragged ray_rows, Address t, Address face, Address barycentric,
           int device, Address stream) {
            const OnDevice on(device);
            first_hits({bvh, at<const Vec3>(origins), at<const Vec3>(directions), ray_rows, at<float>(t),
                        at<std::int64_t>(face), at<Vec3>(barycentric)},
                       at<void>(stream));
        },
        unlocked, py::arg("bvh"), py::arg("origins"), py::arg("directions"), py::arg("ray_rows"), py::arg("t"),
        py::arg("face"), py::arg("barycentric"), py::arg("device"), py::arg("stream"));
    module.def(
        "closest_points",
        [](Bvh bvh, Address queries, Ragged query_rows, Address distance, Address face, Address point, int device,
           Address stream) {
            const OnDevice on(device);
            closest_points({bvh, at<const Vec3>(queries), query_rows, at<float>(distance), at<std::int64_t>(face),
                            at<Vec3>(point)},
                           at<void>(stream));
        },
        unlocked, py::arg("bvh"), py::arg("queries"), py::arg("query_rows"), py::arg("distance"), py::arg("face"),
        py::arg("point"), py::arg("device"), py::arg("stream"));
    bind_clouds(module);
    bind_orders(module);
    bind_grids(module);
    module.def(
        "devices",
        [] {
            py::list found;
            for (const DeviceInfo& device : devices())
                found.append(py::make_tuple(device.name, device.major, device.minor, device.memory));
            return found;
        },
        "Name, compute capability (two numbers) and bytes of memory of each GPU.");
}

}  // namespace

}  // namespace nepa3d::cuda

PYBIND11_MODULE(NEPA3D_CUDA_MODULE, module) {
    module.doc() = "The geometry over batches of shapes; use it through nepa3d.ops.cuda.";
    nepa3d::cuda::bind(module);
}
