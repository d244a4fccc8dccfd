/// Readers of the two mesh formats the corpora come in.
#pragma once

#include <string>
#include <string_view>

#include "mesh.hpp"

namespace nepa3d {

/// Parses Wavefront OBJ text: `v` and `f` statements of all objects and groups; polygons become fans; indices count
/// from 1 or back from the latest vertex, in any of the forms v, v/vt, v//vn, v/vt/vn; lines end in LF or CRLF, may
/// be continued by a backslash, and the last may lack its end. Everything else is ignored.
/// Throws std::invalid_argument naming the line: a vertex without three numbers, or an index that is no number or
/// names no vertex.
Mesh parse_obj(std::string_view text);

/// Parses an ASCII OFF file (also with C and N prefixes, and with the counts on the header's line). Polygons become
/// fans, colours are ignored. Throws std::invalid_argument on a malformed file, naming what is missing; declared
/// counts that the text cannot hold are refused before memory is taken.
Mesh parse_off(std::string_view text);

}  // namespace nepa3d
