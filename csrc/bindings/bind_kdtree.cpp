#include <algorithm>

#include "arguments.hpp"
#include "kdtree.hpp"

namespace nepa3d::bindings {

void bind_kdtree(py::module_& module) {
    py::class_<KdTree>(module, "KdTree")
        .def(py::init([](const py::array& points) {
                 const PointRows rows(points, "points", "N");
                 const py::gil_scoped_release unlocked;
                 return KdTree(rows.span());
             }),
             py::arg("points"))
        .def("__len__", &KdTree::size)
        .def(
            "query",
            [](const KdTree& tree, const py::array& queries, int threads) {
                const PointRows rows(queries, "queries", "M");
                at_least(threads, 1, "threads");
                const auto points = rows.span();
                py::array_t<float> distance(static_cast<py::ssize_t>(points.size()));
                py::array_t<std::int64_t> index(static_cast<py::ssize_t>(points.size()));
                std::vector<Nearest> found(points.size());
                {
                    const py::gil_scoped_release unlocked;
                    tree.nearest(points, found, threads);
                }
                std::transform(found.begin(), found.end(), distance.mutable_data(), [](auto n) { return n.distance; });
                std::transform(found.begin(), found.end(), index.mutable_data(), [](auto n) { return n.index; });
                return py::make_tuple(distance, index);
            },
            py::arg("queries"), py::kw_only(), py::arg("threads") = 1);
}

}  // namespace nepa3d::bindings
