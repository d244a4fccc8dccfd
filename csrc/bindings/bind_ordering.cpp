#include "arguments.hpp"
#include "ordering.hpp"

namespace nepa3d::bindings {

namespace {

template <std::vector<std::int64_t> (*sort)(Points)>
py::array_t<std::int64_t> order(const py::array& array, const char* name, const char* letter) {
    const PointRows rows(array, name, letter);
    std::vector<std::int64_t> indices;
    {
        const py::gil_scoped_release unlocked;
        indices = sort(rows.span());
    }
    const auto count = static_cast<py::ssize_t>(indices.size());
    return to_numpy(std::move(indices), {count});
}

}  // namespace

void bind_ordering(py::module_& module) {
    module.def(
        "morton_code",
        [](const py::array& xyz) {
            const PointRows rows(xyz, "xyz", "N");
            std::vector<std::uint32_t> codes = morton_codes(rows.span());
            const auto count = static_cast<py::ssize_t>(codes.size());
            return to_numpy(std::move(codes), {count});
        },
        py::arg("xyz"));
    module.def(
        "morton_order", [](const py::array& xyz) { return order<morton_order>(xyz, "xyz", "N"); }, py::arg("xyz"));
    module.def(
        "ray_direction_order",
        [](const py::array& directions) { return order<ray_direction_order>(directions, "directions", "R"); },
        py::arg("directions"));
}

}  // namespace nepa3d::bindings
