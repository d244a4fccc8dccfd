#include "bvh.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "float4.hpp"
#include "ordering.hpp"
#include "parallel.hpp"
#include "partition.hpp"

namespace nepa3d {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr int bins = 16;
constexpr int sah_depth = 30;  // below it ranges are halved, so that no input makes the tree deeper than max_bvh_depth

using Int4 [[gnu::vector_size(16)]] = std::int32_t;

/// The box of one triangle; the fourth lane of `high` holds the face's index.
struct Reference {
    Float4 low, high;

    Float4 center() const { return low + high; }  // twice, to be exact
    std::uint32_t face() const { return index_of(high); }
};

/// References that go into one subtree, their box, and the box of their centres.
struct Range {
    Reference *begin, *end;
    Box4 box, centers;

    Range(Reference* first, Reference* last) : begin(first), end(last) {
        for (const Reference* r = begin; r != end; ++r) {
            box.add(r->low, r->high);
            const Float4 center = r->center();
            centers.add(center, center);
        }
    }
    Range() : begin(nullptr), end(nullptr) {}
    std::size_t count() const { return static_cast<std::size_t>(end - begin); }
};

struct Bin {
    Box4 box;
    std::uint32_t count = 0;

    void add(const Bin& other) { box.add(other.box), count += other.count; }
    /// A leaf costs the same however full it is.
    float cost() const {
        const std::uint32_t leaves = (count + node_width - 1) / node_width;
        return count ? static_cast<float>(leaves) * box.half_area() : 0;
    }
};

/// Centres to bins, for the three axes at once; an axis without finite extent puts everything into bin 0.
struct Binning {
    Float4 low, scale;

    explicit Binning(const Box4& centers) : low(centers.low), scale{} {
        const Float4 extent = centers.high - centers.low;
        for (int axis = 0; axis < 3; ++axis) {
            const float bins_per_unit = bins / extent[axis];
            const bool usable = extent[axis] > 0 && std::isfinite(extent[axis]) && std::isfinite(bins_per_unit);
            if (usable) scale[axis] = bins_per_unit;
            else low[axis] = 0;
        }
    }
    bool usable(int axis) const { return scale[axis] > 0; }
    Int4 operator()(Float4 center) const {
        const Int4 bin = __builtin_convertvector((center - low) * scale, Int4), last = Int4{} + (bins - 1);
        return bin < 0 ? Int4{} : bin < last ? bin : last;  // a centre may be infinite
    }
};

struct Plane {
    int axis = -1;
    int bin = 0;  ///< the first bin of the right side
    float cost = infinity;
};

Plane best_plane(const Range& range, const Binning& bin_of) {
    std::array<std::array<Bin, bins>, 3> bin;
    for (const Reference* r = range.begin; r != range.end; ++r) {
        const Int4 at = bin_of(r->center());
        for (int axis = 0; axis < 3; ++axis) {
            Bin& b = bin[axis][at[axis]];
            b.box.add(r->low, r->high);
            ++b.count;
        }
    }
    Plane best;
    for (int axis = 0; axis < 3; ++axis) {
        if (!bin_of.usable(axis)) continue;
        std::array<float, bins> right_cost;
        Bin right;
        for (int i = bins - 1; i > 0; --i) {
            right.add(bin[axis][i]);
            right_cost[i] = right.cost();
        }
        Bin left;
        for (int i = 1; i < bins; ++i) {
            left.add(bin[axis][i - 1]);
            const float cost = left.cost() + right_cost[i];
            if (left.count > 0 && left.count < range.count() && cost < best.cost) best = {axis, i, cost};
        }
    }
    return best;
}

/// Reorders the range; what comes before the result goes left.
Reference* split(const Range& range, bool by_area) {
    const Binning bin_of(range.centers);
    const Plane plane = by_area ? best_plane(range, bin_of) : Plane{};
    if (plane.axis < 0) return range.begin + range.count() / 2;
    return partition_branchless(range.begin, range.end,
                                [&](const Reference& r) { return bin_of(r.center())[plane.axis] < plane.bin; });
}

}  // namespace

class TriangleBvh::Builder {
public:
    Builder(TriangleBvh& bvh, Points vertices, std::span<const Face> faces)
        : bvh_(bvh), vertices_(vertices), faces_(faces) {}

    void run() {
        std::vector<Reference> references(faces_.size());
        for (std::size_t i = 0; i < faces_.size(); ++i) {
            const auto corner = [&](std::int64_t at) {
                return with_index(corner_of(vertices_, at), static_cast<std::uint32_t>(i));
            };
            const Float4 a = corner(faces_[i].a), b = corner(faces_[i].b), c = corner(faces_[i].c);
            references[i] = {min(a, min(b, c)), max(a, max(b, c))};
            references[i].high[3] = a[3];
        }
        bvh_.leaves_.reserve(faces_.size() / 8 + 1);
        bvh_.nodes_.emplace_back();
        fill_node(0, Range(references.data(), references.data() + references.size()), 0);
    }

private:
    /// Splits the range with the largest surface, below sah_depth the most triangles, until each child has one.
    void fill_node(std::size_t node, const Range& whole, int depth) {
        const bool by_area = depth < sah_depth;
        std::array<Range, node_width> children;
        children[0] = whole;
        int count = 1;
        while (count < node_width) {
            Range* largest = nullptr;
            float largest_size = 0;
            for (int i = 0; i < count; ++i) {
                if (children[i].count() <= node_width) continue;
                const float size = by_area ? children[i].box.half_area() : static_cast<float>(children[i].count());
                if (largest == nullptr || size > largest_size) largest = &children[i], largest_size = size;
            }
            if (largest == nullptr) break;
            const Range parent = *largest;
            Reference* const middle = split(parent, by_area);
            *largest = Range(parent.begin, middle);
            children[count++] = Range(middle, parent.end);
        }
        for (int i = 0; i < node_width; ++i) {
            const Range& child = children[i];
            for (int axis = 0; axis < 3; ++axis) {
                bvh_.nodes_[node].boxes.low[axis][i] = child.box.low[axis];
                bvh_.nodes_[node].boxes.high[axis][i] = child.box.high[axis];
            }
            bvh_.nodes_[node].child[i] = 0;  // of an inverted box, never followed
            if (child.count() == 0) continue;
            if (child.count() <= node_width) {
                bvh_.nodes_[node].child[i] = ~add_leaf(child);
            } else {
                const std::size_t below = bvh_.nodes_.size();
                bvh_.nodes_.emplace_back();
                bvh_.nodes_[node].child[i] = static_cast<std::int32_t>(below);
                fill_node(below, child, depth + 1);
            }
        }
    }

    std::int32_t add_leaf(const Range& range) {
        const auto index = static_cast<std::int32_t>(bvh_.leaves_.size());
        TriangleLeaf& leaf = bvh_.leaves_.emplace_back();
        for (std::size_t lane = 0; lane < node_width; ++lane) {
            std::array<Vec3, 3> corners{Vec3{nan, nan, nan}, Vec3{nan, nan, nan}, Vec3{nan, nan, nan}};
            std::uint32_t face = 0;
            if (lane < range.count()) {
                face = range.begin[lane].face();
                const auto corner = [&](std::int64_t i) { return vertices_[static_cast<std::size_t>(i)]; };
                corners = {corner(faces_[face].a), corner(faces_[face].b), corner(faces_[face].c)};
            }
            for (std::size_t i = 0; i < 3; ++i) {
                leaf.corner[i][0][lane] = corners[i].x;
                leaf.corner[i][1][lane] = corners[i].y;
                leaf.corner[i][2][lane] = corners[i].z;
            }
            leaf.face[lane] = static_cast<std::int32_t>(face);
        }
        return index;
    }

    TriangleBvh& bvh_;
    Points vertices_;
    std::span<const Face> faces_;
};

TriangleBvh::TriangleBvh(Points vertices, std::span<const Face> faces) : size_(faces.size()) {
    if (faces.empty()) throw std::invalid_argument("faces must not be empty");
    if (faces.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("faces must number less than 2^31");
    Builder(*this, vertices, faces).run();
}

void TriangleBvh::first_hits(Points origins, Points directions, std::span<RayHit> found, int threads) const {
    parallel_for(origins.size(), threads, 256, [&](std::size_t begin, std::size_t end) {
        kernels().first_hits(view(), origins.data() + begin, directions.data() + begin, end - begin,
                             found.data() + begin);
    });
}

void TriangleBvh::closest_points(Points queries, std::span<SurfacePoint> found, int threads) const {
    const std::vector<std::uint32_t> order = spatial_order(queries);
    parallel_for(queries.size(), threads, 256, [&](std::size_t begin, std::size_t end) {
        kernels().closest_points(view(), queries.data(), order.data() + begin, end - begin, found.data());
    });
}

}  // namespace nepa3d
