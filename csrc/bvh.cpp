#include "bvh.hpp"

#include <array>
#include <limits>
#include <numeric>
#include <stdexcept>

#include "triangle.hpp"

namespace nepa3d {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr int bins = 16;
constexpr std::uint32_t leaf_size = 4;
constexpr int sah_depth = 48;  // below it ranges are halved, so no input makes the tree deeper than sah_depth + 31
constexpr int max_depth = sah_depth + 32;
constexpr float traversal_cost = 1;

float half_area(Vec3 low, Vec3 high) {
    const Vec3 e = high - low;
    return e.x * e.y + e.y * e.z + e.z * e.x;
}

Vec3 corner_min(const Triangle& t) { return min(t.a, min(t.b, t.c)); }
Vec3 corner_max(const Triangle& t) { return max(t.a, max(t.b, t.c)); }

float squared_distance(Vec3 low, Vec3 high, Vec3 p) {
    const Vec3 outside = max(max(low - p, p - high), Vec3{0, 0, 0});
    return dot(outside, outside);
}

}  // namespace

class TriangleBvh::Builder {
public:
    explicit Builder(TriangleBvh& bvh) : bvh_(bvh), centers_(bvh.triangles_.size()), order_(bvh.triangles_.size()) {
        for (std::size_t i = 0; i < centers_.size(); ++i) {
            const Triangle& t = bvh.triangles_[i];
            centers_[i] = corner_min(t) + corner_max(t);  // twice the box's centre
        }
        std::iota(order_.begin(), order_.end(), 0u);
    }

    void run() {
        const auto count = static_cast<std::uint32_t>(order_.size());
        bvh_.nodes_.reserve(2 * count / leaf_size + 1);
        bvh_.nodes_.push_back({});
        split(0, 0, count, 0);
        std::vector<Triangle> sorted(count);
        for (std::uint32_t i = 0; i < count; ++i) sorted[i] = bvh_.triangles_[order_[i]];
        bvh_.triangles_ = std::move(sorted);
    }

private:
    struct Bin {
        Box box{{infinity, infinity, infinity}, {-infinity, -infinity, -infinity}};
        std::uint32_t count = 0;

        void add(const Box& other, std::uint32_t n) {
            box = {min(box.low, other.low), max(box.high, other.high)};
            count += n;
        }
        float cost() const { return count ? static_cast<float>(count) * half_area(box.low, box.high) : 0; }
    };
    struct Plane {
        int axis = -1;
        int bin = 0;  ///< the first bin of the right side
        float cost = infinity;
    };

    Box box_of(std::uint32_t index) const {
        const Triangle& t = bvh_.triangles_[order_[index]];
        return {corner_min(t), corner_max(t)};
    }

    static int bin_of(float center, float low, float scale) {
        return std::min(static_cast<int>((center - low) * scale), bins - 1);
    }

    Plane best_plane(std::uint32_t begin, std::uint32_t end, const Box& centers) const {
        Plane best;
        for (int axis = 0; axis < 3; ++axis) {
            const float extent = centers.high[axis] - centers.low[axis];
            const float scale = bins / extent;
            if (!(extent > 0) || !std::isfinite(scale)) continue;
            std::array<Bin, bins> bin;
            for (std::uint32_t i = begin; i < end; ++i)
                bin[bin_of(centers_[order_[i]][axis], centers.low[axis], scale)].add(box_of(i), 1);
            std::array<float, bins> right_cost{};
            Bin right;
            for (int i = bins - 1; i > 0; --i) {
                right.add(bin[i].box, bin[i].count);
                right_cost[i] = right.cost();
            }
            Bin left;
            for (int i = 1; i < bins; ++i) {
                left.add(bin[i - 1].box, bin[i - 1].count);
                const float cost = left.cost() + right_cost[i];
                if (left.count > 0 && left.count < end - begin && cost < best.cost) best = {axis, i, cost};
            }
        }
        return best;
    }

    void split(std::uint32_t node, std::uint32_t begin, std::uint32_t end, int depth) {
        Bin whole;
        Box centers{{infinity, infinity, infinity}, {-infinity, -infinity, -infinity}};
        for (std::uint32_t i = begin; i < end; ++i) {
            whole.add(box_of(i), 1);
            const Vec3 center = centers_[order_[i]];
            centers = {min(centers.low, center), max(centers.high, center)};
        }
        bvh_.nodes_[node].box = whole.box;
        const std::uint32_t middle = partition(begin, end, depth, centers, whole);
        if (middle == end) {
            bvh_.nodes_[node].first = begin;
            bvh_.nodes_[node].count = end - begin;
            return;
        }
        const auto left = static_cast<std::uint32_t>(bvh_.nodes_.size());
        bvh_.nodes_.resize(left + 2);
        bvh_.nodes_[node].first = left;
        bvh_.nodes_[node].count = 0;
        split(left, begin, middle, depth + 1);
        split(left + 1, middle, end, depth + 1);
    }

    /// Reorders [begin, end) so that [begin, middle) goes left; middle == end asks for a leaf.
    std::uint32_t partition(std::uint32_t begin, std::uint32_t end, int depth, const Box& centers, const Bin& whole) {
        const std::uint32_t count = end - begin;
        if (count <= 1) return end;
        const Plane plane = depth < sah_depth ? best_plane(begin, end, centers) : Plane{};
        if (plane.axis < 0) return count <= leaf_size ? end : begin + count / 2;
        const float leaf_cost = whole.cost();
        if (count <= leaf_size && traversal_cost * half_area(whole.box.low, whole.box.high) + plane.cost >= leaf_cost)
            return end;
        const float low = centers.low[plane.axis];
        const float scale = bins / (centers.high[plane.axis] - low);
        const auto middle = std::partition(order_.begin() + begin, order_.begin() + end, [&](std::uint32_t i) {
            return bin_of(centers_[i][plane.axis], low, scale) < plane.bin;
        });
        return static_cast<std::uint32_t>(middle - order_.begin());
    }

    TriangleBvh& bvh_;
    std::vector<Vec3> centers_;
    std::vector<std::uint32_t> order_;
};

TriangleBvh::TriangleBvh(Points vertices, std::span<const Face> faces) {
    if (faces.empty()) throw std::invalid_argument("faces must not be empty");
    if (faces.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("faces must number less than 2^31");
    triangles_.reserve(faces.size());
    for (std::size_t i = 0; i < faces.size(); ++i)
        triangles_.push_back({corner_of(vertices, faces[i].a), corner_of(vertices, faces[i].b),
                              corner_of(vertices, faces[i].c), static_cast<std::int32_t>(i)});
    Builder(*this).run();
}

RayHit TriangleBvh::first_hit(Vec3 origin, Vec3 direction) const {
    RayHit best{infinity, -1, 0, 0};
    if (direction.x == 0 && direction.y == 0 && direction.z == 0) return best;
    const ShearedRay ray(origin, direction);
    const Vec3 inverse{1 / direction.x, 1 / direction.y, 1 / direction.z};

    // Entry parameter of a box, infinity when it is missed. The exit is widened against rounding (Ize: Robust BVH
    // Ray Traversal, JCGT 2(2), 2013); the comparisons drop the NaN of a ray that runs in a box's face.
    const auto enter = [&](const Box& box) {
        float near = 0, far = best.t;
        for (int axis = 0; axis < 3; ++axis) {
            float t0 = (box.low[axis] - origin[axis]) * inverse[axis];
            float t1 = (box.high[axis] - origin[axis]) * inverse[axis];
            if (t0 > t1) std::swap(t0, t1);
            near = t0 > near ? t0 : near;
            far = t1 < far ? t1 * (1 + 4 * std::numeric_limits<float>::epsilon()) : far;
        }
        return near <= far ? near : infinity;
    };

    struct Entry {
        std::uint32_t node;
        float near;
    };
    std::array<Entry, max_depth + 1> stack;
    int top = 0;
    stack[top++] = {0, enter(nodes_[0].box)};
    while (top > 0) {
        const Entry entry = stack[--top];
        if (entry.near > best.t || entry.near == infinity) continue;
        const Node& node = nodes_[entry.node];
        if (node.count == 0) {
            Entry nearer{node.first, enter(nodes_[node.first].box)};
            Entry farther{node.first + 1, enter(nodes_[node.first + 1].box)};
            if (farther.near < nearer.near) std::swap(nearer, farther);
            if (farther.near < infinity) stack[top++] = farther;
            if (nearer.near < infinity) stack[top++] = nearer;
            continue;
        }
        for (std::uint32_t i = node.first; i < node.first + node.count; ++i) {
            const Triangle& triangle = triangles_[i];
            float t, u, v;
            if (!ray.intersect(triangle.a, triangle.b, triangle.c, t, u, v) || t < 0) continue;
            if (t < best.t || (t == best.t && triangle.face < best.face)) best = {t, triangle.face, u, v};
        }
    }
    return best;
}

SurfacePoint TriangleBvh::closest_point(Vec3 query) const {
    SurfacePoint best{infinity, std::numeric_limits<std::int32_t>::max(), {}};  // distance is squared until the end
    struct Entry {
        std::uint32_t node;
        float squared;
    };
    const auto entry_of = [&](std::uint32_t node) {
        return Entry{node, squared_distance(nodes_[node].box.low, nodes_[node].box.high, query)};
    };
    std::array<Entry, max_depth + 1> stack;
    int top = 0;
    stack[top++] = entry_of(0);
    while (top > 0) {
        const Entry entry = stack[--top];
        if (entry.squared > best.distance) continue;
        const Node& node = nodes_[entry.node];
        if (node.count == 0) {
            Entry nearer = entry_of(node.first), farther = entry_of(node.first + 1);
            if (farther.squared < nearer.squared) std::swap(nearer, farther);
            stack[top++] = farther;
            stack[top++] = nearer;
            continue;
        }
        for (std::uint32_t i = node.first; i < node.first + node.count; ++i) {
            const Triangle& triangle = triangles_[i];
            const Vec3 offset = closest_to_origin(triangle.a - query, triangle.b - query, triangle.c - query);
            const float squared = dot(offset, offset);
            if (squared < best.distance || (squared == best.distance && triangle.face < best.face))
                best = {squared, triangle.face, query + offset};
        }
    }
    best.distance = std::sqrt(best.distance);
    return best;
}

}  // namespace nepa3d
