#include "mesh.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

namespace nepa3d {

namespace {

bool is_finite(Vec3d v) { return std::isfinite(v.x) && std::isfinite(v.y) && std::isfinite(v.z); }

/// Scaled by the longest edge first, so that the test means the same for tiny and for huge meshes.
bool has_area(Vec3d a, Vec3d b, Vec3d c) {
    Vec3d ab = b - a, ac = c - a;
    const Vec3d reach = max(max(ab, -1.0 * ab), max(ac, -1.0 * ac));
    const double longest = std::max({reach.x, reach.y, reach.z});
    if (!(longest > 0) || !std::isfinite(longest)) return false;
    ab = (1 / longest) * ab, ac = (1 / longest) * ac;
    const Vec3d normal = cross(ab, ac);
    return dot(normal, normal) > 0;
}

/// Faces told apart by their three vertices in any order: an open-addressing table of places in `faces`.
class FaceSet {
public:
    /// `most` faces at most, fewer than 2^32.
    FaceSet(const std::vector<Face>& faces, std::size_t most) : faces_(faces), slots_(std::bit_ceil(2 * most + 1), 0) {}

    /// Brings the place of a face into the cache, some time before it is inserted.
    void prefetch(const Face& face) const { __builtin_prefetch(&slots_[hash_of(sorted(face)) & (slots_.size() - 1)]); }

    /// True if no face of the set has these vertices; then the caller must append the face to `faces`.
    bool insert(const Face& face) {
        const std::array<std::int64_t, 3> key = sorted(face);
        for (std::size_t slot = hash_of(key);; ++slot) {
            std::uint32_t& place = slots_[slot & (slots_.size() - 1)];
            if (place == 0) {
                place = static_cast<std::uint32_t>(faces_.size() + 1);
                return true;
            }
            if (sorted(faces_[place - 1]) == key) return false;
        }
    }

private:
    static std::size_t hash_of(const std::array<std::int64_t, 3>& key) {
        std::uint64_t hash = 0;
        for (const std::int64_t index : key) hash = (hash ^ static_cast<std::uint64_t>(index)) * 0x9e3779b97f4a7c15ull;
        return hash >> 32;
    }
    static std::array<std::int64_t, 3> sorted(const Face& f) {
        const std::int64_t low = std::min({f.a, f.b, f.c}), high = std::max({f.a, f.b, f.c});
        return {low, f.a ^ f.b ^ f.c ^ low ^ high, high};
    }

    const std::vector<Face>& faces_;
    std::vector<std::uint32_t> slots_;  // 1 + place, 0 where empty
};

}  // namespace

Mesh clean_mesh(std::span<const Vec3d> vertices, std::span<const Face> faces, Dropped& dropped) {
    if (faces.size() >= std::numeric_limits<std::uint32_t>::max())
        throw std::invalid_argument("faces must number less than 2^32 - 1");
    Mesh mesh;
    std::vector<std::int64_t> renumbered(vertices.size(), -1);
    mesh.faces.reserve(faces.size());
    FaceSet kept(mesh.faces, faces.size());
    constexpr std::size_t ahead = 8;
    for (std::size_t i = 0; i < faces.size(); ++i) {
        if (i + ahead < faces.size()) kept.prefetch(faces[i + ahead]);
        const Face& face = faces[i];
        const Vec3d a = corner_of(vertices, face.a), b = corner_of(vertices, face.b), c = corner_of(vertices, face.c);
        if (!is_finite(a) || !is_finite(b) || !is_finite(c)) {
            ++dropped.nonfinite_faces;
        } else if (!has_area(a, b, c)) {
            ++dropped.degenerate_faces;
        } else if (!kept.insert(face)) {
            ++dropped.duplicate_faces;
        } else {
            mesh.faces.push_back(face);
            for (const std::int64_t index : {face.a, face.b, face.c}) renumbered[static_cast<std::size_t>(index)] = 0;
        }
    }
    for (std::size_t i = 0; i < vertices.size(); ++i) {
        if (renumbered[i] == 0) {
            renumbered[i] = static_cast<std::int64_t>(mesh.vertices.size());
            mesh.vertices.push_back(vertices[i]);
        } else if (is_finite(vertices[i])) {
            ++dropped.unreferenced_vertices;
        } else {
            ++dropped.nonfinite_vertices;
        }
    }
    for (Face& face : mesh.faces) {
        face = {renumbered[static_cast<std::size_t>(face.a)], renumbered[static_cast<std::size_t>(face.b)],
                renumbered[static_cast<std::size_t>(face.c)]};
    }
    return mesh;
}

Fitted fit_unit_sphere(std::span<const Vec3d> vertices) {
    if (vertices.empty()) throw std::invalid_argument("vertices must not be empty");
    Vec3d low = vertices[0], high = low;
    for (const Vec3d v : vertices) low = min(low, v), high = max(high, v);
    const Vec3d centre{low.x / 2 + high.x / 2, low.y / 2 + high.y / 2, low.z / 2 + high.z / 2};
    const Vec3d above = high - centre,
                below = low - centre;  // rounding is monotone: no vertex is farther along an axis
    const double reach = std::max({above.x, above.y, above.z, -below.x, -below.y, -below.z});
    const auto placed = [&](Vec3d v) {  // divided by the reach first, so that no square over- or underflows
        const Vec3d from = v - centre;
        return Vec3d{from.x / reach, from.y / reach, from.z / reach};
    };
    double farthest = 0;
    for (const Vec3d v : vertices) farthest = std::max(farthest, dot(placed(v), placed(v)));
    const double radius = std::sqrt(farthest);
    std::vector<Vec3> fitted(vertices.size());
    std::transform(vertices.begin(), vertices.end(), fitted.begin(), [&](Vec3d v) {
        const Vec3d p = placed(v);
        return to_float({p.x / radius, p.y / radius, p.z / radius});
    });
    return {std::move(fitted), centre, reach * radius};
}

}  // namespace nepa3d
