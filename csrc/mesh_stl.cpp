#include <algorithm>
#include <bit>
#include <cstring>
#include <string>

#include "byte_order.hpp"
#include "mesh_io.hpp"
#include "polygons.hpp"
#include "text_cursor.hpp"

namespace nepa3d {

namespace {

constexpr std::size_t HEADER = 84, RECORD = 50;  // bytes: a comment of 80 and a count; normal, corners, attributes

/// Text begins with "solid" and, unlike the header of a binary file that does so too, has no zero byte.
bool is_text(std::string_view content) {
    Cursor cursor{content};
    cursor.skip_to_token();
    const std::string word = cursor.word().substr(0, 5);
    const bool solid =
        std::equal(word.begin(), word.end(), "solid", "solid" + 5, [](char a, char b) { return (a | 0x20) == b; });
    return solid && content.substr(0, HEADER).find('\0') == std::string_view::npos;
}

MeshFile parse_binary(std::string_view content) {
    if (content.size() < HEADER)
        throw std::invalid_argument("an STL file must be text that begins with solid, or have " +
                                    std::to_string(HEADER) + " bytes at least, got " + std::to_string(content.size()));
    std::size_t count = load<std::uint32_t, std::endian::little>(content.data() + 80);
    const std::size_t body = content.size() - HEADER, whole = body / RECORD;
    MeshFile file;
    if (count == 0 && whole > 0 && body % RECORD == 0) {  // some programs mean to fill it in later
        file.repaired = "the header declares no triangles, the file has " + std::to_string(whole);
        count = whole;
    }
    if (count > whole || body - count * RECORD >= RECORD)
        throw std::invalid_argument(std::to_string(count) + " triangles are declared, the file has " +
                                    std::to_string(whole));
    if (const std::size_t rest = body - count * RECORD; rest > 0)
        file.repaired = std::to_string(rest) + " bytes after the last triangle";
    Mesh& mesh = file.mesh;
    mesh.vertices.reserve(3 * count);
    for (std::size_t i = 0; i < count; ++i) {
        const char* const record = content.data() + HEADER + i * RECORD;
        for (std::size_t k = 3; k < 12; k += 3) {
            const auto number = [&](std::size_t n) -> double {
                return load<float, std::endian::little>(record + 4 * (k + n));
            };
            mesh.vertices.push_back({number(0), number(1), number(2)});
        }
        const auto first = static_cast<std::int64_t>(3 * i);
        mesh.faces.push_back({first, first + 1, first + 2});
    }
    return file;
}

/// Whether `word` stands here; then goes past it.
bool take_word(Cursor& cursor, std::string_view word) {
    if (static_cast<std::size_t>(cursor.end - cursor.at) < word.size()) return false;
    Cursor after = cursor;
    for (const char letter : word) {
        if ((*after.at++ | 0x20) != letter) return false;
    }
    if (!after.at_separator()) return false;
    cursor = after;
    return true;
}

MeshFile parse_text(std::string_view text) {
    MeshFile file;
    std::vector<Vec3d>& vertices = file.mesh.vertices;
    PolygonList polygons;
    bool in_facet = false, ended = true;
    for (Cursor cursor{text}; cursor.skip_to_token();) {
        double number;
        if (take_word(cursor, "vertex")) {
            Vec3d vertex{};
            for (int axis = 0; axis < 3; ++axis) {
                if (!cursor.skip_to_token() || !cursor.read(vertex[axis]))
                    throw cursor.error("a vertex must have 3 numbers");
            }
            if (!in_facet) throw cursor.error("a vertex must stand in a facet");
            polygons.add(static_cast<std::int64_t>(vertices.size()));
            vertices.push_back(vertex);
        } else if (take_word(cursor, "facet")) {
            if (in_facet) throw cursor.error("a facet must end before the next begins");
            in_facet = true;
        } else if (take_word(cursor, "endfacet")) {
            in_facet = false;
            polygons.close();
        } else if (take_word(cursor, "endloop") || take_word(cursor, "loop")) {
            polygons.close();
        } else if (take_word(cursor, "solid")) {
            ended = false;
            cursor.next_line();  // the rest is a name
        } else if (take_word(cursor, "endsolid")) {
            ended = true;
            cursor.next_line();
        } else if (!take_word(cursor, "normal") && !take_word(cursor, "outer") && !cursor.read(number)) {
            throw cursor.error("facet, normal, outer loop, vertex, endloop, endfacet or endsolid must stand here");
        }
        if (ended && in_facet) throw cursor.error("a facet must end before its solid does");
    }
    if (in_facet) throw std::invalid_argument("the file ends in a facet");
    if (!ended) file.repaired = "endsolid is missing";
    file.mesh.faces = std::move(polygons).triangles(vertices);
    return file;
}

}  // namespace

MeshFile parse_stl(std::string_view content) { return is_text(content) ? parse_text(content) : parse_binary(content); }

}  // namespace nepa3d
