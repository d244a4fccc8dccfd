#include "polygons.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace nepa3d {

namespace {

struct Point2 {
    double x, y;
};

/// Twice the signed area of a triangle; positive if it runs counter-clockwise.
double turn(Point2 a, Point2 b, Point2 c) { return (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x); }

bool same(Point2 a, Point2 b) { return a.x == b.x && a.y == b.y; }

/// What rounding may do to twice the area of a triangle in a polygon that fits [-1, 1]^3.
constexpr double ROUNDING = 64 * std::numeric_limits<double>::epsilon();

/// The corners seen along the polygon's Newell normal, scaled to fit [-1, 1]; false if there is no such normal.
bool project(std::span<const Vec3d> vertices, std::span<const std::int64_t> corners, std::vector<Point2>& points) {
    const auto vertex = [&](std::size_t i) { return vertices[static_cast<std::size_t>(corners[i])]; };
    const Vec3d origin = vertex(0);
    Vec3d low{}, high{};
    for (std::size_t i = 1; i < corners.size(); ++i) {
        const Vec3d p = vertex(i) - origin;
        low = min(low, p), high = max(high, p);
    }
    const Vec3d reach = max(high, -1.0 * low);
    const double extent = std::max({reach.x, reach.y, reach.z});
    // min and max pass over NaN, which the normal then holds; an extent that is subnormal cannot be scaled
    if (!(extent >= std::numeric_limits<double>::min()) || !std::isfinite(extent)) return false;

    const double scale = 1 / extent;
    if (!std::isfinite(scale)) return false;
    Vec3d normal{}, previous = scale * (vertex(corners.size() - 1) - origin);
    for (std::size_t i = 0; i < corners.size(); ++i) {
        const Vec3d p = scale * (vertex(i) - origin);
        normal = normal + cross(previous, p);
        previous = p;
    }
    const double length = std::sqrt(dot(normal, normal));
    if (!(length > ROUNDING)) return false;
    normal = {normal.x / length, normal.y / length, normal.z / length};  // exactly 1 along an axis

    // axes of the plane: along those of space where the normal is one, so that such polygons are seen without rounding
    const Vec3d size = max(normal, -1.0 * normal);
    const int axis = size.x >= size.y && size.x >= size.z ? 0 : size.y >= size.z ? 1 : 2;
    Vec3d right{};
    right[(axis + 1) % 3] = 1;
    right = right - dot(right, normal) * normal;
    right = (1 / std::sqrt(dot(right, right))) * right;
    const Vec3d up = cross(normal, right);
    points.clear();
    for (std::size_t i = 0; i < corners.size(); ++i) {
        const Vec3d p = scale * (vertex(i) - origin);
        points.push_back({dot(p, right), dot(p, up)});
    }
    return true;
}

/// Whether no triangle of the fan around corner `hub` is turned over.
bool is_fan(std::span<const Point2> points, std::size_t hub) {
    const std::size_t n = points.size();
    for (std::size_t i = 1; i + 1 < n; ++i) {
        if (turn(points[hub], points[(hub + i) % n], points[(hub + i + 1) % n]) < -ROUNDING) return false;
    }
    return true;
}

/// A ring of corners from which ears are cut until a triangle is left.
class EarClipper {
public:
    EarClipper(std::span<const Point2> points, std::span<const std::int64_t> corners)
        : points_(points), corners_(corners), next_(points.size()), previous_(points.size()), left_(points.size()) {
        for (std::size_t i = 0; i < left_; ++i) {
            next_[i] = (i + 1) % left_;
            previous_[i] = (i + left_ - 1) % left_;
        }
        for (std::size_t i = 0; i < points.size(); ++i) {
            if (turn_at(i) <= ROUNDING) blocking_.push_back(i);
        }
        std::stable_sort(blocking_.begin(), blocking_.end(),
                         [&](std::size_t a, std::size_t b) { return points[a].x < points[b].x; });
        for (const std::size_t i : blocking_) blocking_x_.push_back(points[i].x);
    }

    void run(Face* faces) {
        look_at_all();
        while (left_ > 3) {
            const std::size_t tip = next_tip();
            *faces++ = face_at(tip);
            const std::size_t before = previous_[tip], after = next_[tip];
            next_[before] = after;
            previous_[after] = before;
            next_[tip] = REMOVED;
            --left_;
            to_look_at_.push_back(after);
            to_look_at_.push_back(before);
        }
        const std::size_t a = first();
        *faces = {corners_[a], corners_[next_[a]], corners_[previous_[a]]};
    }

private:
    double turn_at(std::size_t i) const { return turn(points_[previous_[i]], points_[i], points_[next_[i]]); }

    Face face_at(std::size_t i) const { return {corners_[previous_[i]], corners_[i], corners_[next_[i]]}; }

    bool is_ear(std::size_t tip) const {
        const double area = turn_at(tip);
        if (area < -ROUNDING) return false;
        if (area <= ROUNDING) return true;  // on a straight run: a cut changes nothing
        const std::size_t from = previous_[tip], to = next_[tip];
        const Point2 a = points_[from], b = points_[tip], c = points_[to];
        const auto begin = std::lower_bound(blocking_x_.begin(), blocking_x_.end(), std::min({a.x, b.x, c.x}));
        const double end_x = std::max({a.x, b.x, c.x}), low = std::min({a.y, b.y, c.y}),
                     high = std::max({a.y, b.y, c.y});
        for (auto x = begin; x != blocking_x_.end() && *x <= end_x; ++x) {
            const std::size_t i = blocking_[static_cast<std::size_t>(x - blocking_x_.begin())];
            const Point2 p = points_[i];
            if (p.y < low || p.y > high || next_[i] == REMOVED || i == from || i == tip || i == to) continue;
            if (same(p, a) || same(p, c) || turn(a, b, p) < 0 || turn(b, c, p) < 0 || turn(c, a, p) < 0) continue;
            if (turn_at(i) <= ROUNDING) return false;
        }
        return true;
    }

    /// The corner to cut. In a simple polygon a cut makes ears of its neighbours only (O'Rourke, Computational Geometry
    /// in C, 1.4), so that each corner is looked at few times; touching corners may need another look at all.
    std::size_t next_tip() {
        while (true) {
            while (!to_look_at_.empty()) {
                const std::size_t i = to_look_at_.back();
                to_look_at_.pop_back();
                if (next_[i] != REMOVED && is_ear(i)) return i;
            }
            if (looks_left_ == 0) return without_ear();
            --looks_left_;
            look_at_all();
            if (std::none_of(to_look_at_.begin(), to_look_at_.end(), [&](std::size_t i) { return is_ear(i); }))
                looks_left_ = 0, to_look_at_.clear();
        }
    }

    /// All that are left are to be looked at, the first of the polygon first.
    void look_at_all() {
        to_look_at_.clear();
        for (std::size_t i = next_.size(); i-- > 0;) {
            if (next_[i] != REMOVED) to_look_at_.push_back(i);
        }
    }

    std::size_t without_ear() {
        std::size_t i = first();
        for (std::size_t k = 0; k < left_; ++k, i = next_[i]) {
            if (turn_at(i) > 0) return i;
        }
        return i;
    }

    /// The first corner that is left.
    std::size_t first() {
        while (next_[first_] == REMOVED) ++first_;
        return first_;
    }

    static constexpr std::size_t REMOVED = std::numeric_limits<std::size_t>::max();

    std::span<const Point2> points_;
    std::span<const std::int64_t> corners_;
    std::vector<std::size_t> next_, previous_;
    std::vector<std::size_t> blocking_;  // corners that were not convex at first, by x: no other can become reflex
    std::vector<double> blocking_x_;
    std::vector<std::size_t> to_look_at_;  // from the back
    std::size_t left_, first_ = 0;
    int looks_left_ = 64;
};

void fan(std::span<const std::int64_t> corners, std::size_t hub, Face* faces) {
    const std::size_t n = corners.size();
    for (std::size_t i = 1; i + 1 < n; ++i)
        *faces++ = {corners[hub], corners[(hub + i) % n], corners[(hub + i + 1) % n]};
}

}  // namespace

void triangulate_polygon(std::span<const Vec3d> vertices, std::span<const std::int64_t> corners, Face* faces) {
    thread_local std::vector<Point2> points;
    if (corners.size() == 3 || !project(vertices, corners, points) || is_fan(points, 0)) return fan(corners, 0, faces);
    if (corners.size() == 4) return fan(corners, is_fan(points, 1) ? 1 : 0, faces);
    EarClipper(points, corners).run(faces);
}

std::vector<Face> PolygonList::triangles(std::span<const Vec3d> vertices) && {
    for (const Polygon& polygon : polygons_) {
        triangulate_polygon(vertices, std::span(corners_).subspan(polygon.first_corner, polygon.corners),
                            &faces_[polygon.first_face]);
    }
    return std::move(faces_);
}

}  // namespace nepa3d
