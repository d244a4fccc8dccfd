#include <pybind11/pybind11.h>

#include <string>

#include "simd/kernels.hpp"

namespace nepa3d::bindings {
void bind_kdtree(pybind11::module_& module);
void bind_mesh(pybind11::module_& module);
void bind_bvh(pybind11::module_& module);
void bind_voxel(pybind11::module_& module);
void bind_ordering(pybind11::module_& module);
void bind_pools(pybind11::module_& module);
void bind_samples(pybind11::module_& module);
}  // namespace nepa3d::bindings

PYBIND11_MODULE(_core, module) {
    module.doc() = "The compiled core of nepa3d; use it through nepa3d.ops and nepa3d.samples.loader.";
    module.attr("__version__") = NEPA3D_VERSION;
    nepa3d::bindings::bind_kdtree(module);
    nepa3d::bindings::bind_mesh(module);
    nepa3d::bindings::bind_bvh(module);
    nepa3d::bindings::bind_voxel(module);
    nepa3d::bindings::bind_ordering(module);
    nepa3d::bindings::bind_pools(module);
    nepa3d::bindings::bind_samples(module);
    module.def(
        "commit", [] { return std::string(NEPA3D_COMMIT); },
        "The commit this was built from, with -dirty if it had changes; \"unknown\" if not from a repository.");
    module.def(
        "instruction_set", [] { return nepa3d::kernels().name; },
        "What the vector kernels run on: baseline, avx2 or avx512.");
    module.def(
        "use_instruction_set",
        [](const std::string& name) {
            if (!nepa3d::use_kernels(name.c_str()))
                throw pybind11::value_error("name must be an instruction set this processor has, got " + name);
        },
        pybind11::arg("name"), "Choose another one, for tests: the answers are the same bit for bit.");
}
