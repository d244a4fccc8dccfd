#include <string>

#include "mesh_io.hpp"
#include "polygons.hpp"
#include "text_cursor.hpp"

namespace nepa3d {

namespace {

/// What the header's word says of a vertex: [ST][C][N][4][n]OFF, as Geomview defines it.
struct VertexForm {
    int numbers = 3;        ///< that every vertex has: the position, the weight of 4OFF, the normal of NOFF
    int more = 4;           ///< that may follow on its line: a colour, the texture coordinates of STOFF
    bool weighted = false;  ///< 4OFF: the fourth number divides the position
    bool plain = true;  ///< neither colours nor normals nor texture coordinates, so that all numbers are positions
};

char upper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }

/// Reads the header's word, in either case: what stands before OFF, and OFF.
std::string read_header_word(Cursor& cursor) {
    std::string word;
    for (const char* c = cursor.at; c < cursor.end && word.size() < 8; ++c) {
        word += upper(*c);
        if (!word.ends_with("OFF")) continue;
        // a small n before it is not the N of normals but says that a dimension follows
        if (word.size() > 3 && c[-3] == 'n' && *c == 'F') word[word.size() - 4] = 'n';
        cursor.at = c + 1;
        return word.substr(0, word.size() - 3);
    }
    throw cursor.error("the header must be OFF");
}

VertexForm read_form(Cursor& cursor) {
    const Cursor start = cursor;
    const std::string word = read_header_word(cursor);
    std::string_view prefix = word;
    VertexForm form;
    if (prefix.starts_with("ST")) form.more += 2, prefix.remove_prefix(2);
    for (; prefix.starts_with('C') || prefix.starts_with('N'); prefix.remove_prefix(1)) {
        if (prefix[0] == 'N') form.numbers += 3;
    }
    form.plain = prefix.size() == word.size();
    if (prefix.starts_with('4')) form.weighted = true, ++form.numbers, prefix.remove_prefix(1);
    if (prefix == "n") throw start.error("OFF of any dimension (nOFF) is not supported: the header must be OFF");
    if (!prefix.empty() || form.numbers > 7) throw start.error("the header must be OFF");
    Cursor after = cursor;
    if (after.skip_blanks() && upper(*after.at) == 'B') throw start.error("binary OFF is not supported");
    return form;
}

bool read_count(Cursor& cursor, std::int64_t& count) { return cursor.read(count) && count >= 0; }

/// Whether a number that is the only one of its line stands next: the number of edges, as vertices have three.
bool lone_number_follows(Cursor cursor) {
    double number;
    return cursor.skip_to_token() && cursor.read(number) && (!cursor.skip_blanks() || *cursor.at == '#');
}

/// The numbers of vertices and faces. That of edges is used by nothing and is often left out.
void read_counts(Cursor& cursor, std::int64_t& vertices, std::int64_t& faces) {
    const char* const what = "the header must give the numbers of vertices, faces and edges";
    if (!cursor.skip_to_token() || !read_count(cursor, vertices)) throw cursor.error(what);
    if (!cursor.skip_to_token() || !read_count(cursor, faces)) throw cursor.error(what);
    std::int64_t edges;
    if ((cursor.skip_blanks() && *cursor.at != '#') || lone_number_follows(cursor)) {
        if (!cursor.skip_to_token() || !cursor.read(edges)) throw cursor.error(what);
    }
    const auto left = cursor.end - cursor.at;
    if (vertices > left / 6 + 1 || faces > left / 2 + 1)
        throw std::invalid_argument("line " + std::to_string(cursor.line) + ": " + std::to_string(vertices) +
                                    " vertices and " + std::to_string(faces) +
                                    " faces are declared, more than the file can hold");
}

/// Goes past the numbers that belong to what was read, such as a colour, to the end of the line. If more than `most`
/// stand there, they do not, and are left for the next vertex or face. Returns their number.
int skip_extra_numbers(Cursor& cursor, int most) {
    Cursor ahead = cursor;
    int count = 0;
    double number;
    for (; ahead.skip_blanks() && *ahead.at != '#'; ++count) {
        if (!ahead.read(number)) throw ahead.error("only numbers may follow");
    }
    if (count <= most) ahead.next_line(), cursor = ahead;
    return count;
}

Vec3d read_vertex(Cursor& cursor, const VertexForm& form, std::int64_t i) {
    double numbers[7];
    for (int k = 0; k < form.numbers; ++k) {
        if (!cursor.skip_to_token()) throw cursor.error("vertex " + std::to_string(i) + " is missing");
        if (!cursor.read(numbers[k]))
            throw cursor.error("vertex " + std::to_string(i) + " must have " + std::to_string(form.numbers) +
                               " numbers");
    }
    const int more = skip_extra_numbers(cursor, form.more);
    if (more > form.more && !form.plain)
        throw cursor.error("vertex " + std::to_string(i) + " must have at most " +
                           std::to_string(form.numbers + form.more) + " numbers on its line");
    const double weight = form.weighted ? numbers[3] : 1;
    return {numbers[0] / weight, numbers[1] / weight, numbers[2] / weight};
}

void read_face(Cursor& cursor, std::int64_t vertices, std::int64_t i, PolygonList& polygons) {
    std::int64_t corners;
    if (!cursor.skip_to_token()) throw cursor.error("face " + std::to_string(i) + " is missing");
    if (!read_count(cursor, corners))
        throw cursor.error("face " + std::to_string(i) + " must begin with its number of corners");
    for (std::int64_t k = 0; k < corners; ++k) {
        std::int64_t index;
        if (!cursor.skip_to_token() || !cursor.read(index))
            throw cursor.error("face " + std::to_string(i) + " must have " + std::to_string(corners) + " indices");
        if (index < 0 || index >= vertices)
            throw std::invalid_argument("line " + std::to_string(cursor.line) + ": vertex index " +
                                        std::to_string(index) + " is out of range, there are " +
                                        std::to_string(vertices) + " vertices");
        polygons.add(index);
    }
    polygons.close();
    skip_extra_numbers(cursor, 4);  // a colour
}

}  // namespace

Mesh parse_off(std::string_view text) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    Cursor cursor{text};
    if (!cursor.skip_to_token()) throw std::invalid_argument("the file is empty, expected an OFF header");
    const VertexForm form = read_form(cursor);
    std::int64_t vertices, faces;
    read_counts(cursor, vertices, faces);
    Mesh mesh;
    PolygonList polygons;
    mesh.vertices.reserve(static_cast<std::size_t>(vertices));
    polygons.reserve(static_cast<std::size_t>(faces));
    for (std::int64_t i = 0; i < vertices; ++i) mesh.vertices.push_back(read_vertex(cursor, form, i));
    for (std::int64_t i = 0; i < faces; ++i) read_face(cursor, vertices, i, polygons);
    if (cursor.skip_to_token()) throw cursor.error("the file must end after the last face that its header declares");
    mesh.faces = std::move(polygons).triangles(mesh.vertices);
    return mesh;
}

}  // namespace nepa3d
