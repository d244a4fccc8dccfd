#include <string>

#include "mesh_io.hpp"
#include "polygons.hpp"
#include "text_cursor.hpp"

namespace nepa3d {

namespace {

/// The largest index used, and the line that used it: OBJ allows a face to come before its vertices.
struct LargestIndex {
    std::int64_t index = -1;
    std::size_t line = 0;
};

Vec3d read_vertex(Cursor& cursor) {
    Vec3d vertex{};
    for (int axis = 0; axis < 3; ++axis) {
        if (!cursor.skip_blanks() || !cursor.read(vertex[axis])) throw cursor.error("a vertex must have 3 numbers");
    }
    if (cursor.skip_blanks() && std::string_view("#0123456789+-.nNiI").find(*cursor.at) == std::string_view::npos)
        throw cursor.error("only a weight or a colour may follow the 3 numbers of a vertex");
    return vertex;
}

/// Skips what may follow a vertex index, /vt/vn.
void skip_other_indices(Cursor& cursor) {
    while (!cursor.at_separator()) {
        const char c = *cursor.at;
        if (c != '/' && c != '-' && c != '+' && (c < '0' || c > '9'))
            throw cursor.error("a face must have indices of the form v, v/vt, v//vn or v/vt/vn");
        ++cursor.at;
    }
}

void read_face(Cursor& cursor, std::int64_t vertices, PolygonList& polygons, LargestIndex& largest) {
    while (cursor.skip_blanks() && *cursor.at != '#') {
        std::int64_t index;
        if (!cursor.read_number(index)) throw cursor.error("a face's vertex index must be a whole number");
        const std::int64_t vertex = index > 0 ? index - 1 : index == 0 || index < -vertices ? -1 : vertices + index;
        if (vertex < 0)
            throw std::invalid_argument("line " + std::to_string(cursor.line) + ": vertex index " +
                                        std::to_string(index) + " is out of range, there are " +
                                        std::to_string(vertices) + " vertices so far");
        if (vertex > largest.index) largest = {vertex, cursor.line};
        polygons.add(vertex);
        if (!cursor.at_separator()) skip_other_indices(cursor);
    }
    polygons.close();
}

/// Reads the statement's keyword, up to what is neither a letter nor a 2.
std::string_view read_keyword(Cursor& cursor) {
    const char* const from = cursor.at;
    if (cursor.end - from > 1 && is_blank(from[1])) return {cursor.at++, 1};
    while (cursor.at < cursor.end && (is_letter(*cursor.at) || (*cursor.at == '2' && cursor.at > from))) ++cursor.at;
    return {from, static_cast<std::size_t>(cursor.at - from)};
}

}  // namespace

Mesh parse_obj(std::string_view text) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    Mesh mesh;
    PolygonList polygons;
    LargestIndex largest;
    for (Cursor cursor{text}; !cursor.done(); cursor.next_line()) {
        if (!cursor.skip_blanks()) continue;
        const char first = static_cast<char>(*cursor.at | 0x20);
        if (first != 'v' && first != 'f' && first != 's') continue;  // of the others none carries a surface
        const std::string_view keyword = read_keyword(cursor);
        const bool vertex = keyword == "v" || keyword == "V";
        if (!vertex && keyword != "f" && keyword != "F" && keyword != "fo") {
            if (keyword == "surf" && cursor.at_separator())
                throw std::invalid_argument("line " + std::to_string(cursor.line) +
                                            ": free-form surfaces (surf) are not supported");
            continue;
        }
        if (!cursor.at_separator()) throw cursor.error("a blank must follow " + std::string(keyword));
        if (vertex) mesh.vertices.push_back(read_vertex(cursor));
        else read_face(cursor, static_cast<std::int64_t>(mesh.vertices.size()), polygons, largest);
    }
    if (largest.index >= static_cast<std::int64_t>(mesh.vertices.size()))
        throw std::invalid_argument("line " + std::to_string(largest.line) + ": vertex index " +
                                    std::to_string(largest.index + 1) + " is out of range, there are " +
                                    std::to_string(mesh.vertices.size()) + " vertices");
    mesh.faces = std::move(polygons).triangles(mesh.vertices);
    return mesh;
}

}  // namespace nepa3d
