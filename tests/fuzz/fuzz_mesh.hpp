/// Any bytes as a mesh file: a mesh whose indices name vertices, or std::invalid_argument.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string_view>

#include "mesh.hpp"
#include "mesh_io.hpp"

inline const nepa3d::Mesh& mesh_of(const nepa3d::Mesh& mesh) { return mesh; }
inline const nepa3d::Mesh& mesh_of(const nepa3d::MeshFile& file) { return file.mesh; }

template <class Parsed>
int read_or_refuse(Parsed (*parse)(std::string_view), const std::uint8_t* data, std::size_t size) {
    try {
        const Parsed parsed = parse({reinterpret_cast<const char*>(data), size});
        const nepa3d::Mesh& mesh = mesh_of(parsed);
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
