/// A reading position in a text of numbers and words, as mesh files have them.
#pragma once

#include <array>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

namespace nepa3d {

/// What a character is to a reader of numbers and words.
enum class Kind : unsigned char { other, blank, line_end, comment, backslash };

inline constexpr std::array<Kind, 256> KINDS = [] {
    std::array<Kind, 256> kinds{};
    for (const char c : {' ', '\t', '\v', '\f'}) kinds[static_cast<unsigned char>(c)] = Kind::blank;
    kinds['\n'] = kinds['\r'] = Kind::line_end;
    kinds['#'] = Kind::comment;
    kinds['\\'] = Kind::backslash;
    return kinds;
}();

inline Kind kind_of(char c) { return KINDS[static_cast<unsigned char>(c)]; }
inline bool is_blank(char c) { return kind_of(c) == Kind::blank; }
inline bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }

/// Lines end in LF, CRLF or CR. A backslash before a line end continues the line.
struct Cursor {
    const char* at;
    const char* end;
    std::size_t line = 1;

    explicit Cursor(std::string_view text) : at(text.data()), end(text.data() + text.size()) {}

    bool done() const { return at == end; }

    /// Skips blanks and continued line ends; false at the end of the line.
    bool skip_blanks() {
        for (; at < end; ++at) {
            switch (kind_of(*at)) {
                case Kind::blank: break;
                case Kind::other:
                case Kind::comment: return true;
                case Kind::line_end:
                    if (*at == '\n' || at + 1 == end || at[1] != '\n') return false;
                    break;
                case Kind::backslash:
                    const char* const line_end = continued();
                    if (line_end == nullptr) return true;
                    at = line_end, ++line;
                    break;
            }
        }
        return false;
    }

    /// Goes past the statement's end. A backslash continues a statement, but not a comment: it may end a path there.
    void next_line() {
        bool comment = false;
        while (at < end && !at_line_end()) {
            comment = comment || *at == '#';
            if (!comment && *at == '\\' && !skip_blanks()) break;
            if (at < end) ++at;
        }
        if (at < end && *at == '\r' && at + 1 < end && at[1] == '\n') ++at;
        if (at < end) ++at, ++line;
    }

    /// Skips blanks, line ends and # comments; false at the end of the text.
    bool skip_to_token() {
        while (skip_blanks() ? *at == '#' : !done()) next_line();
        return !done();
    }

    /// Whether a word or number that ends here is whole.
    bool at_separator() const {
        if (at == end) return true;
        const Kind kind = kind_of(*at);
        return kind != Kind::other && (kind != Kind::backslash || continued() != nullptr);
    }

    /// Reads a number without looking at what follows it. The values that Microsoft's library wrote, as 1.#INF and
    /// -1.#IND, are infinite and NaN.
    template <class Number>
    bool read_number(Number& value) {
        if (at == end) return false;
        const char* from = at + (at + 1 < end && *at == '+' && at[1] != '-');
        const auto [stop, error] = std::from_chars(from, end, value);
        if (error == std::errc::result_out_of_range) value = out_of_range(from, stop, value);
        else if (error != std::errc()) return false;
        at = stop;
        if constexpr (std::is_floating_point_v<Number>) {
            if (at < end && *at == '#' && at[-1] == '.') read_named(value);
        }
        return true;
    }

    /// Reads a number that a separator follows.
    template <class Number>
    bool read(Number& value) {
        const char* const from = at;
        if (read_number(value) && at_separator()) return true;
        at = from;
        return false;
    }

    /// The word here, up to the next blank; for messages cut short, and without what cannot be printed.
    std::string word() const {
        std::string text;
        for (const char* c = at; c < end && !is_blank(*c) && *c != '\n' && *c != '\r'; ++c) {
            if (text.size() == 40) return text + "...";
            text += *c >= ' ' && *c <= '~' ? *c : '?';
        }
        return text;
    }

    /// "line 3: `what`", and, unless the line is at its end, what stands here instead.
    std::invalid_argument error(const std::string& what) const {
        const std::string here = at < end && !at_line_end() ? ", not '" + word() + "'" : "";
        return std::invalid_argument("line " + std::to_string(line) + ": " + what + here);
    }

private:
    bool at_line_end() const { return kind_of(*at) == Kind::line_end; }

    /// The last character of the line end that a backslash here takes away, if it does.
    const char* continued() const {
        if (*at != '\\') return nullptr;
        const char* next = at + 1;
        while (next + 1 < end && *next == '\r' && (next[1] == '\r' || next[1] == '\n')) ++next;
        return next < end && (*next == '\n' || *next == '\r') ? next : nullptr;
    }

    template <class Number>
    void read_named(Number& value) {
        for (const std::string_view name : {"INF", "IND", "QNAN", "SNAN"}) {
            const std::string_view rest(at + 1, static_cast<std::size_t>(end - at - 1));
            if (!rest.starts_with(name)) continue;
            value = name == "INF" ? std::copysign(std::numeric_limits<Number>::infinity(), value)
                                  : std::numeric_limits<Number>::quiet_NaN();
            at += 1 + name.size();
            while (at < end && *at >= '0' && *at <= '9') ++at;  // padding to the number of digits asked for
            return;
        }
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

}  // namespace nepa3d
