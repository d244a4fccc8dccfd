#include <array>
#include <bit>
#include <limits>
#include <string>
#include <utility>

#include "byte_order.hpp"
#include "mesh_io.hpp"
#include "polygons.hpp"
#include "text_cursor.hpp"

namespace nepa3d {

namespace {

enum class Type { int8, uint8, int16, uint16, int32, uint32, float32, float64 };

constexpr std::pair<std::string_view, Type> TYPE_NAMES[] = {
    {"char", Type::int8},     {"int8", Type::int8},       {"uchar", Type::uint8},    {"uint8", Type::uint8},
    {"short", Type::int16},   {"int16", Type::int16},     {"ushort", Type::uint16},  {"uint16", Type::uint16},
    {"int", Type::int32},     {"int32", Type::int32},     {"uint", Type::uint32},    {"uint32", Type::uint32},
    {"float", Type::float32}, {"float32", Type::float32}, {"double", Type::float64}, {"float64", Type::float64},
};

bool is_integer(Type type) { return type != Type::float32 && type != Type::float64; }

std::size_t size_of(Type type) {
    constexpr std::size_t SIZES[] = {1, 1, 2, 2, 4, 4, 4, 8};
    return SIZES[static_cast<std::size_t>(type)];
}

/// What a property is needed for.
enum class Role { none, x, y, z, polygon, strips };

struct Property {
    std::string name;
    Type type;
    bool is_list = false;
    Type count_type = Type::uint8;
    Role role = Role::none;
};

struct Element {
    std::string name;
    std::uint64_t count;
    std::vector<Property> properties;
};

enum class Form { text, little_endian, big_endian };

struct Header {
    Form form = Form::text;
    std::vector<Element> elements;
    std::string_view body;
    std::size_t lines = 1;  ///< the number of the body's first line
};

/// The lines of a header, in whose form the first one ends, as the byte after the last may be a line end by chance.
class HeaderLines {
public:
    explicit HeaderLines(std::string_view content) : rest_(content) {
        const std::size_t stop = content.find_first_of("\r\n");
        const bool cr = stop != std::string_view::npos && content[stop] == '\r';
        end_ = !cr ? "\n" : stop + 1 < content.size() && content[stop + 1] == '\n' ? "\r\n" : "\r";
    }

    bool next(std::vector<std::string>& words) {
        const std::size_t stop = rest_.find(end_);
        if (stop == std::string_view::npos) return false;
        ++line;
        words.clear();
        for (Cursor cursor{rest_.substr(0, stop)}; cursor.skip_blanks();) {
            const char* const from = cursor.at;
            while (cursor.at < cursor.end && !is_blank(*cursor.at) && *cursor.at != '\r') ++cursor.at;
            words.emplace_back(from, cursor.at);
            if (cursor.at < cursor.end && *cursor.at == '\r') break;
        }
        rest_.remove_prefix(stop + end_.size());
        return true;
    }

    std::string_view rest() const { return rest_; }

    std::invalid_argument error(const std::string& what) const {
        return std::invalid_argument("line " + std::to_string(line) + ": " + what);
    }

    std::size_t line = 0;

private:
    std::string_view rest_, end_;
};

Type type_named(const std::string& name, const HeaderLines& lines) {
    for (const auto& [known, type] : TYPE_NAMES) {
        if (known == name) return type;
    }
    throw lines.error("a property must have a type such as float or int32, not '" + Cursor{name}.word() + "'");
}

Element read_element(const std::vector<std::string>& words, const HeaderLines& lines) {
    std::int64_t count = 0;
    Cursor number{words.size() == 3 ? words[2] : std::string_view()};
    if (!number.read(count) || !number.done() || count < 0)
        throw lines.error("an element must have a name and a count");
    return {words[1], static_cast<std::uint64_t>(count), {}};
}

/// What the property of an element is needed for. Corners of elements that nobody knows are not passed over.
Role role_of(const Element& element, const Property& property, const HeaderLines& lines) {
    const bool corners = property.is_list && (property.name == "vertex_indices" || property.name == "vertex_index");
    if (element.name == "vertex" && !property.is_list && property.name.size() == 1) {
        const std::size_t axis = std::string_view("xyz").find(property.name[0]);
        if (axis < 3) return std::array{Role::x, Role::y, Role::z}[axis];
    }
    if (!corners || element.count == 0) return Role::none;
    if (!is_integer(property.type)) throw lines.error(property.name + " must be integers");
    if (element.name == "face") return Role::polygon;
    if (element.name == "tristrips") return Role::strips;
    throw lines.error("faces in an element " + Cursor{element.name}.word() + " are not supported");
}

Property read_property(const std::vector<std::string>& words, const HeaderLines& lines) {
    const bool is_list = words.size() > 1 && words[1] == "list";
    if (words.size() != (is_list ? 5u : 3u)) throw lines.error("a property must have a type and a name");
    Property property{words.back(), type_named(words[words.size() - 2], lines), is_list};
    if (is_list) property.count_type = type_named(words[2], lines);
    if (!is_integer(property.count_type)) throw lines.error("the count of a list must be an integer");
    return property;
}

bool has(const Element& element, std::initializer_list<Role> roles) {
    for (const Role role : roles) {
        bool found = false;
        for (const Property& property : element.properties) found = found || property.role == role;
        if (!found) return false;
    }
    return true;
}

void check_elements(const std::vector<Element>& elements) {
    int vertices = 0;
    for (const Element& element : elements) {
        vertices += element.name == "vertex";
        if (element.count == 0) continue;
        if (element.name == "vertex" && !has(element, {Role::x, Role::y, Role::z}))
            throw std::invalid_argument("element vertex must have the properties x, y and z");
        if (element.name == "face" && !has(element, {Role::polygon}))
            throw std::invalid_argument("element face must have a list vertex_indices");
    }
    if (vertices != 1) throw std::invalid_argument("there must be one element vertex, got " + std::to_string(vertices));
}

Header read_header(std::string_view content) {
    Header header;
    HeaderLines lines(content);
    std::vector<std::string> words;
    bool formed = false;
    if (!content.starts_with("ply") || !lines.next(words) || words[0] != "ply")
        throw std::invalid_argument("a PLY file must begin with a line ply");
    while (true) {
        if (!lines.next(words)) throw std::invalid_argument("the header must end with end_header");
        if (words.empty() || words[0] == "comment" || words[0] == "obj_info") continue;
        if (words[0] == "end_header") break;
        if (words[0] == "format") {
            const std::string form = words.size() > 1 ? words[1] : "";
            if (form == "ascii") header.form = Form::text;
            else if (form == "binary_little_endian") header.form = Form::little_endian;
            else if (form == "binary_big_endian") header.form = Form::big_endian;
            else throw lines.error("the format must be ascii, binary_little_endian or binary_big_endian");
            if (words.size() != 3 || words[2] != "1.0") throw lines.error("the format's version must be 1.0");
            formed = true;
        } else if (words[0] == "element") {
            header.elements.push_back(read_element(words, lines));
        } else if (words[0] == "property") {
            if (header.elements.empty()) throw lines.error("a property must belong to an element");
            Element& element = header.elements.back();
            Property property = read_property(words, lines);
            property.role = role_of(element, property, lines);
            if (property.role != Role::none && has(element, {property.role}))
                throw lines.error("element " + element.name + " has two properties " + property.name);
            element.properties.push_back(std::move(property));
        } else {
            throw lines.error("a header must be made of format, comment, obj_info, element and property, not '" +
                              Cursor{words[0]}.word() + "'");
        }
    }
    if (!formed) throw std::invalid_argument("the header must name a format");
    check_elements(header.elements);
    header.body = lines.rest();
    header.lines = lines.line + 1;
    return header;
}

/// The numbers of a body in text, of which each record is one line.
class TextNumbers {
public:
    explicit TextNumbers(const Header& header) : cursor_(header.body) { cursor_.line = header.lines; }

    void begin_record() {
        if (!cursor_.skip_to_token()) throw cursor_.error("the file ends too early");
    }

    void end_record() {
        if (cursor_.skip_blanks())
            throw cursor_.error("the line must end after the properties that the header declares");
    }

    template <class Number>
    Number read(Type) {
        Number value;
        if (!cursor_.skip_blanks()) throw cursor_.error("there must be as many numbers as the header declares");
        if (!cursor_.read(value)) throw cursor_.error("here must be a number of the type that the header declares");
        return value;
    }

    void skip(Type, std::uint64_t count) {
        for (std::uint64_t i = 0; i < count; ++i) read<double>(Type::float64);
    }

    std::invalid_argument error(const std::string& what) const { return cursor_.error(what); }

    std::size_t left() const { return static_cast<std::size_t>(cursor_.end - cursor_.at); }
    static std::size_t least_size(Type) { return 1; }
    std::string extra() { return cursor_.skip_to_token() ? "text after the last element" : ""; }

private:
    Cursor cursor_;
};

/// The numbers of a binary body.
template <std::endian order>
class BinaryNumbers {
public:
    explicit BinaryNumbers(const Header& header)
        : at_(header.body.data()), begin_(at_), end_(at_ + header.body.size()) {}

    void begin_record() {}
    void end_record() {}

    template <class Number>
    Number read(Type type) {
        if (left() < size_of(type)) throw error("the file ends too early");
        const char* const from = at_;
        at_ += size_of(type);
        switch (type) {
            case Type::int8: return static_cast<Number>(load<std::int8_t, order>(from));
            case Type::uint8: return static_cast<Number>(load<std::uint8_t, order>(from));
            case Type::int16: return static_cast<Number>(load<std::int16_t, order>(from));
            case Type::uint16: return static_cast<Number>(load<std::uint16_t, order>(from));
            case Type::int32: return static_cast<Number>(load<std::int32_t, order>(from));
            case Type::uint32: return static_cast<Number>(load<std::uint32_t, order>(from));
            case Type::float32: return static_cast<Number>(load<float, order>(from));
            case Type::float64: return static_cast<Number>(load<double, order>(from));
        }
        throw error("a number has no type");
    }

    void skip(Type type, std::uint64_t count) {
        if (count > left() / size_of(type)) throw error("the file ends too early");
        at_ += size_of(type) * count;
    }

    std::invalid_argument error(const std::string& what) const {
        return std::invalid_argument("byte " + std::to_string(at_ - begin_) + " after the header: " + what);
    }

    std::size_t left() const { return static_cast<std::size_t>(end_ - at_); }
    static std::size_t least_size(Type type) { return size_of(type); }
    std::string extra() const { return left() ? std::to_string(left()) + " bytes after the last element" : ""; }

private:
    const char *at_, *begin_, *end_;
};

/// The corners of all faces, checked once all vertices are known.
struct Faces {
    PolygonList polygons;
    std::int64_t lowest = 0, highest = -1;

    void note(std::int64_t corner) { lowest = std::min(lowest, corner), highest = std::max(highest, corner); }
};

template <class Numbers>
std::uint64_t read_list_size(Numbers& numbers, const Property& list) {
    const auto count = numbers.template read<std::int64_t>(list.count_type);
    if (count < 0 || static_cast<std::uint64_t>(count) > numbers.left() / Numbers::least_size(list.type))
        throw numbers.error("a list of " + std::to_string(count) + " numbers is more than the file can hold");
    return static_cast<std::uint64_t>(count);
}

template <class Numbers>
void read_polygon(Numbers& numbers, Type type, std::uint64_t count, Faces& faces) {
    for (std::uint64_t i = 0; i < count; ++i) {
        const auto corner = numbers.template read<std::int64_t>(type);
        faces.note(corner);
        faces.polygons.add(corner);
    }
    faces.polygons.close();
}

/// Strips of triangles, of which each shares two corners with the one before and every second is turned; -1 ends one.
/// A triangle that names a corner twice only joins two strips.
template <class Numbers>
void read_strips(Numbers& numbers, Type type, std::uint64_t count, Faces& faces) {
    std::int64_t a = -1, b = -1;
    bool turned = false;
    for (std::uint64_t i = 0; i < count; ++i) {
        const auto c = numbers.template read<std::int64_t>(type);
        if (c == -1) {
            a = b = -1, turned = false;
            continue;
        }
        faces.note(c);
        if (a >= 0) {
            if (a != b && b != c && a != c) faces.polygons.add_triangle(turned ? Face{b, a, c} : Face{a, b, c});
            turned = !turned;
        }
        a = b, b = c;
    }
}

template <class Numbers>
void read_element(Numbers& numbers, const Element& element, Mesh& mesh, Faces& faces) {
    std::size_t least = 0;
    for (const Property& property : element.properties)
        least += Numbers::least_size(property.is_list ? property.count_type : property.type);
    if (least == 0) return;  // a record of nothing
    if (element.count > numbers.left() / least)
        throw std::invalid_argument(std::to_string(element.count) + " records of element " +
                                    Cursor{element.name}.word() + " are declared, more than the file can hold");
    if (element.name == "vertex") mesh.vertices.reserve(element.count);
    for (std::uint64_t i = 0; i < element.count; ++i) {
        numbers.begin_record();
        Vec3d vertex{};
        for (const Property& property : element.properties) {
            const std::uint64_t count = property.is_list ? read_list_size(numbers, property) : 1;
            switch (property.role) {
                case Role::none: numbers.skip(property.type, count); break;
                case Role::x: vertex.x = numbers.template read<double>(property.type); break;
                case Role::y: vertex.y = numbers.template read<double>(property.type); break;
                case Role::z: vertex.z = numbers.template read<double>(property.type); break;
                case Role::polygon: read_polygon(numbers, property.type, count, faces); break;
                case Role::strips: read_strips(numbers, property.type, count, faces); break;
            }
        }
        numbers.end_record();
        if (element.name == "vertex") mesh.vertices.push_back(vertex);
    }
}

template <class Numbers>
MeshFile read_body(const Header& header) {
    Numbers numbers(header);
    MeshFile file;
    Faces faces;
    for (const Element& element : header.elements) read_element(numbers, element, file.mesh, faces);
    const auto vertices = static_cast<std::int64_t>(file.mesh.vertices.size());
    if (faces.lowest < 0 || faces.highest >= vertices)
        throw std::invalid_argument("vertex index " + std::to_string(faces.lowest < 0 ? faces.lowest : faces.highest) +
                                    " is out of range, there are " + std::to_string(vertices) + " vertices");
    file.mesh.faces = std::move(faces.polygons).triangles(file.mesh.vertices);
    file.repaired = numbers.extra();
    return file;
}

}  // namespace

MeshFile parse_ply(std::string_view content) {
    const Header header = read_header(content);
    switch (header.form) {
        case Form::text: return read_body<TextNumbers>(header);
        case Form::little_endian: return read_body<BinaryNumbers<std::endian::little>>(header);
        case Form::big_endian: return read_body<BinaryNumbers<std::endian::big>>(header);
    }
    throw std::invalid_argument("the header must name a format");
}

}  // namespace nepa3d
