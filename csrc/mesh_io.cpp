#include "mesh_io.hpp"

#include <charconv>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

namespace nepa3d {

namespace {

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\v' || c == '\f'; }

/// A reading position in a text.
struct Cursor {
    const char* at;
    const char* end;
    std::size_t line = 1;

    bool done() const { return at == end; }

    /// Skips blanks and continued line ends; false at the end of the line.
    bool skip_blanks() {
        for (; at < end; ++at) {
            if (is_blank(*at)) continue;
            const char* const line_end = continues();
            if (line_end == nullptr) return *at != '\n';
            at = line_end;
            ++line;
        }
        return false;
    }

    /// Goes to the next blank, line end or continued line end.
    void skip_token() {
        while (at < end && !is_blank(*at) && *at != '\n' && !continues()) ++at;
    }

    /// Goes past the statement's end. A backslash continues a statement, but not a comment: it may end a path there.
    void next_line() {
        bool comment = false;
        while (at < end && *at != '\n') {
            comment = comment || *at == '#';
            if (!comment && *at == '\\' && !skip_blanks()) break;
            ++at;
        }
        if (at < end) ++at, ++line;
    }

    /// Skips blanks, line ends and # comments; false at the end of the text.
    bool skip_to_token() {
        while (skip_blanks() ? *at == '#' : !done()) next_line();
        return !done();
    }

    template <class Number>
    bool read(Number& value) {
        const char* from = at + (at + 1 < end && *at == '+' && at[1] != '-');
        const auto [stop, error] = std::from_chars(from, end, value);
        if (error == std::errc::result_out_of_range) value = out_of_range(from, stop, value);
        else if (error != std::errc()) return false;
        at = stop;
        return true;
    }

    std::invalid_argument error(const std::string& what) const {
        return std::invalid_argument("line " + std::to_string(line) + ": " + what);
    }

private:
    /// The line end that a backslash here takes away, if it does.
    const char* continues() const {
        if (*at != '\\') return nullptr;
        const char* next = at + 1;
        while (next < end && *next == '\r') ++next;
        return next < end && *next == '\n' ? next : nullptr;
    }

    static std::int64_t out_of_range(const char* from, const char*, std::int64_t) {
        return *from == '-' ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max();
    }
    /// Overflow becomes infinite, to be dropped with the other non-finite vertices; underflow becomes zero.
    static double out_of_range(const char* from, const char* stop, double) {
        long double value = *from == '-' ? -HUGE_VALL : HUGE_VALL;
        std::from_chars(from, stop, value);  // farther out than this, it is taken for an overflow
        return static_cast<double>(value);
    }
};

Vec3d read_vertex(Cursor& cursor) {
    Vec3d vertex{};
    for (int axis = 0; axis < 3; ++axis) {
        if (!cursor.skip_blanks() || !cursor.read(vertex[axis])) throw cursor.error("a vertex must have 3 numbers");
    }
    return vertex;
}

/// Adds polygons one corner at a time, as a fan around the first.
class Fan {
public:
    explicit Fan(std::vector<Face>& faces) : faces_(faces) {}

    void add(std::int64_t corner) {
        if (corners_ == 0) first_ = corner;
        if (corners_ >= 2) faces_.push_back({first_, previous_, corner});
        previous_ = corner;
        ++corners_;
    }

private:
    std::vector<Face>& faces_;
    std::int64_t first_ = 0, previous_ = 0, corners_ = 0;
};

/// The largest index used, and the line that used it: OBJ allows a face to come before its vertices.
struct LargestIndex {
    std::int64_t index = -1;
    std::size_t line = 0;
};

void read_obj_face(Cursor& cursor, Mesh& mesh, LargestIndex& largest) {
    Fan fan(mesh.faces);
    const auto count = static_cast<std::int64_t>(mesh.vertices.size());
    while (cursor.skip_blanks() && *cursor.at != '#') {
        std::int64_t index;
        if (!cursor.read(index)) throw cursor.error("a face's vertex index must be a whole number");
        const std::int64_t vertex = index > 0 ? index - 1 : index == 0 || index < -count ? -1 : count + index;
        if (vertex < 0)
            throw cursor.error("vertex index " + std::to_string(index) + " is out of range, there are " +
                               std::to_string(count) + " vertices so far");
        if (vertex > largest.index) largest = {vertex, cursor.line};
        fan.add(vertex);
        cursor.skip_token();  // /vt/vn
    }
}

}  // namespace

Mesh parse_obj(std::string_view text) {
    if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    Mesh mesh;
    LargestIndex largest;
    for (Cursor cursor{text.data(), text.data() + text.size()}; !cursor.done(); cursor.next_line()) {
        if (!cursor.skip_blanks()) continue;
        const char keyword = *cursor.at;
        if ((keyword != 'v' && keyword != 'f') || cursor.end - cursor.at < 2 || !is_blank(cursor.at[1])) continue;
        ++cursor.at;
        if (keyword == 'v') mesh.vertices.push_back(read_vertex(cursor));
        else read_obj_face(cursor, mesh, largest);
    }
    if (largest.index >= static_cast<std::int64_t>(mesh.vertices.size()))
        throw std::invalid_argument("line " + std::to_string(largest.line) + ": vertex index " +
                                    std::to_string(largest.index + 1) + " is out of range, there are " +
                                    std::to_string(mesh.vertices.size()) + " vertices");
    return mesh;
}

Mesh parse_off(std::string_view text) {
    Cursor cursor{text.data(), text.data() + text.size()};
    if (!cursor.skip_to_token()) throw std::invalid_argument("the file is empty, expected an OFF header");
    while (!cursor.done() && (*cursor.at == 'C' || *cursor.at == 'N')) ++cursor.at;
    if (std::string_view(cursor.at, static_cast<std::size_t>(cursor.end - cursor.at)).substr(0, 3) != "OFF")
        throw cursor.error("the header must be OFF");
    cursor.at += 3;

    std::int64_t counts[3];
    for (std::int64_t& count : counts) {
        if (!cursor.skip_to_token() || !cursor.read(count) || count < 0)
            throw cursor.error("the header must give the numbers of vertices, faces and edges");
    }
    const auto left = cursor.end - cursor.at;
    if (counts[0] > left / 6 + 1 || counts[1] > left / 4 + 1)
        throw cursor.error(std::to_string(counts[0]) + " vertices and " + std::to_string(counts[1]) +
                           " faces are declared, more than the file can hold");
    Mesh mesh;
    mesh.vertices.reserve(static_cast<std::size_t>(counts[0]));
    mesh.faces.reserve(static_cast<std::size_t>(counts[1]));
    for (std::int64_t i = 0; i < counts[0]; ++i, cursor.next_line()) {
        if (!cursor.skip_to_token()) throw cursor.error("vertex " + std::to_string(i) + " is missing");
        mesh.vertices.push_back(read_vertex(cursor));
    }
    for (std::int64_t i = 0; i < counts[1]; ++i, cursor.next_line()) {
        std::int64_t corners;
        if (!cursor.skip_to_token() || !cursor.read(corners))
            throw cursor.error("face " + std::to_string(i) + " is missing");
        Fan fan(mesh.faces);
        for (std::int64_t k = 0; k < corners; ++k) {
            std::int64_t index;
            if (!cursor.skip_blanks() || !cursor.read(index))
                throw cursor.error("face " + std::to_string(i) + " must have " + std::to_string(corners) + " indices");
            if (index < 0 || index >= counts[0])
                throw cursor.error("vertex index " + std::to_string(index) + " is out of range, there are " +
                                   std::to_string(counts[0]) + " vertices");
            fan.add(index);
        }
    }
    return mesh;
}

}  // namespace nepa3d
