// Any bytes as OFF text: a mesh whose indices name vertices, or std::invalid_argument.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "mesh.hpp"
#include "mesh_io.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    try {
        const nepa3d::Mesh mesh = nepa3d::parse_off({reinterpret_cast<const char*>(data), size});
        nepa3d::Dropped dropped;
        const nepa3d::Mesh clean = nepa3d::clean_mesh(mesh.vertices, mesh.faces, dropped);
        for (const nepa3d::Face& face : clean.faces) {
            for (const auto corner : {face.a, face.b, face.c}) {
                if (corner < 0 || corner >= static_cast<std::int64_t>(clean.vertices.size())) std::abort();
            }
        }
    } catch (const std::invalid_argument&) {
    }
    return 0;
}
