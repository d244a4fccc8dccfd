/// Readers of mesh files, from their content. None opens a file. Polygons become triangles as polygons.hpp says.
///
/// All throw std::invalid_argument on a malformed file, saying where the fault is (in text the line) and what stood
/// there; messages hold "is out of range" for an index that names no vertex and "not supported" for what the format
/// allows and the reader does not read. Numbers of text must be followed by a separator, so that decimal commas and the
/// like are refused; nan, inf and Microsoft's 1.#IND are numbers. Lines end in LF, CRLF or CR. Texts are ASCII or UTF-8
/// and their blanks ASCII's. Counts that a file cannot hold are refused before memory is taken.
#pragma once

#include <string>
#include <string_view>

#include "mesh.hpp"

namespace nepa3d {

/// A mesh, and what was not as it should be in a file that could be read all the same; empty if nothing.
struct MeshFile {
    Mesh mesh;
    std::string repaired;
};

/// Wavefront OBJ text: `v` and `f` statements of all objects and groups; indices count from 1 or back from the latest
/// vertex, in any of the forms v, v/vt, v//vn, v/vt/vn; lines may be continued by a backslash, and the last may lack its
/// end. Other statements are ignored, except `surf`: free-form surfaces are refused.
Mesh parse_obj(std::string_view text);

/// OFF text, also with the prefixes ST, C, N and 4, in either case, with the counts on the header's line, without the
/// number of edges, and with vertices that span lines or share one. Normals, colours and texture coordinates are
/// ignored. Binary OFF and nOFF are refused, and so is text after the last face.
Mesh parse_off(std::string_view text);

/// PLY 1.0, as text or binary in either byte order: the elements vertex, face and tristrips in any order, with any
/// properties beside the ones needed; other elements are skipped.
MeshFile parse_ply(std::string_view content);

/// STL, binary or text; vertices are not joined. Read and reported as repaired: fewer than 50 bytes after the last
/// triangle, a count of 0 in a file of whole triangles, and a text without endsolid. Any other count that is wrong is
/// refused, and so is a text that ends in a facet.
MeshFile parse_stl(std::string_view content);

}  // namespace nepa3d
