#include "sampling.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

namespace nepa3d {

namespace {

struct Plane {
    Vec3d corner, edge1, edge2, normal;  // the normal's length is twice the area
};

Plane plane_of(Points vertices, const Face& face) {
    const Vec3d a = to_double(corner_of(vertices, face.a));
    const Vec3d edge1 = to_double(corner_of(vertices, face.b)) - a;
    const Vec3d edge2 = to_double(corner_of(vertices, face.c)) - a;
    return {a, edge1, edge2, cross(edge1, edge2)};
}

/// Finds the first value of an ascending list above a target: a table tells where to begin, so that it takes O(1) steps
/// on average (Chen and Asau: On Generating Random Variates from an Empirical Distribution, 1974).
class GuideTable {
public:
    GuideTable(const std::vector<double>& ascending, std::size_t size) : ascending_(ascending), begin_(size + 1) {
        std::size_t at = 0;
        for (std::size_t i = 0; i < begin_.size(); ++i) {
            const double target = ascending.back() * (static_cast<double>(i) / static_cast<double>(size));
            while (at < ascending.size() && ascending[at] <= target) ++at;
            begin_[i] = at;
        }
    }

    /// The first above fraction * back(), or the length; 0 <= fraction <= 1.
    std::size_t first_above(double fraction) const {
        const double target = fraction * ascending_.back();
        std::size_t at = begin_[static_cast<std::size_t>(fraction * static_cast<double>(begin_.size() - 1))];
        while (at > 0 && ascending_[at - 1] > target) --at;  // the table's targets are rounded
        while (at < ascending_.size() && ascending_[at] <= target) ++at;
        return at;
    }

private:
    const std::vector<double>& ascending_;
    std::vector<std::size_t> begin_;
};

}  // namespace

SurfaceSampler::SurfaceSampler(Points vertices, std::span<const Face> faces)
    : vertices_(vertices), faces_(faces), cumulative_(faces.size()), last_(0) {
    double total = 0;
    for (std::size_t i = 0; i < faces.size(); ++i) {
        const Vec3d normal = plane_of(vertices, faces[i]).normal;
        const double area = std::sqrt(dot(normal, normal));
        if (area > 0) last_ = i;
        cumulative_[i] = total += area;
    }
    if (!(total > 0))
        throw std::invalid_argument("faces must have a positive total area, got " + std::to_string(total));
}

std::vector<SurfaceSample> SurfaceSampler::sample(Points uniforms) const {
    const GuideTable guide(cumulative_, uniforms.size());
    std::vector<SurfaceSample> samples;
    samples.reserve(uniforms.size());
    for (const Vec3 uniform : uniforms) {
        const std::size_t face = std::min(guide.first_above(double(uniform.x)), last_);
        const Plane plane = plane_of(vertices_, faces_[face]);
        const double root = std::sqrt(double(uniform.y)), z = double(uniform.z);
        const Vec3d point = plane.corner + (root * (1 - z)) * plane.edge1 + (root * z) * plane.edge2;
        const Vec3d normal = (1 / std::sqrt(dot(plane.normal, plane.normal))) * plane.normal;
        samples.push_back({to_float(point), to_float(normal), static_cast<std::int64_t>(face)});
    }
    return samples;
}

}  // namespace nepa3d
