#include "bvh.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <memory>
#include <stdexcept>
#include <utility>

#include "float4.hpp"
#include "ordering.hpp"
#include "parallel.hpp"
#include "partition.hpp"

namespace nepa3d {

namespace {

constexpr float infinity = std::numeric_limits<float>::infinity();
constexpr float nan = std::numeric_limits<float>::quiet_NaN();
constexpr int many_bins = 16, few_bins = 8;  // few where evaluating them would take longer than filling them
constexpr std::size_t few_references = 96;
constexpr std::size_t worth_a_thread = 8192;  // triangles whose building takes longer than starting threads
constexpr int sah_depth = 30;  // below it ranges are halved, so that no input makes the tree deeper than max_bvh_depth

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

/// Centres to bins along one axis.
template <int bins, int axis>
struct Binning {
    float low, scale;

    explicit Binning(const Box4& centers)
        : low(centers.low[axis]), scale(bins / (centers.high[axis] - centers.low[axis])) {}
    int operator()(Float4 center) const {
        return std::min(static_cast<int>((center[axis] - low) * scale), bins - 1);  // no centre is below `low`
    }
};

/// The first bin of the right side, of the plane where the two sides cost least together.
template <int bins, int axis>
int best_plane(const Range& range, const Binning<bins, axis>& bin_of) {
    std::array<Bin, bins> bin;
    for (const Reference* r = range.begin; r != range.end; ++r) {
        Bin& b = bin[bin_of(r->center())];
        b.box.add(r->low, r->high);
        ++b.count;
    }
    std::array<float, bins> right_cost;
    Bin right;
    for (int i = bins - 1; i > 0; --i) {
        right.add(bin[i]);
        right_cost[i] = right.cost();
    }
    int best = 1;
    float best_cost = infinity;
    Bin left;
    for (int i = 1; i < bins; ++i) {
        left.add(bin[i - 1]);
        const float cost = left.cost() + right_cost[i];
        if (left.count > 0 && left.count < range.count() && cost < best_cost) best = i, best_cost = cost;
    }
    return best;
}

template <int bins, int axis>
Reference* split_along(const Range& range) {
    const Binning<bins, axis> bin_of(range.centers);
    const int plane = best_plane(range, bin_of);
    return partition_branchless(range.begin, range.end, [&](const Reference& r) { return bin_of(r.center()) < plane; });
}

/// Along the axis on which the centres lie farthest apart; in the middle if all are in one place or beyond float32.
template <int bins>
Reference* split_by_area(const Range& range) {
    const int axis = range.centers.widest_axis();
    const float extent = range.centers.high[axis] - range.centers.low[axis];
    if (!(extent > 0) || !std::isfinite(extent) || !std::isfinite(bins / extent))
        return range.begin + range.count() / 2;
    if (axis == 0) return split_along<bins, 0>(range);
    if (axis == 1) return split_along<bins, 1>(range);
    return split_along<bins, 2>(range);
}

/// Reorders the range; what comes before the result goes left.
Reference* split(const Range& range, bool by_area) {
    if (!by_area) return range.begin + range.count() / 2;
    return range.count() > few_references ? split_by_area<many_bins>(range) : split_by_area<few_bins>(range);
}

/// Rays at more faces take longer.
std::size_t rays_worth_a_thread(std::size_t faces) {
    return std::clamp<std::size_t>(12'000'000 / (faces + 500), 512, 8192);
}

void fill_leaf(Points vertices, std::span<const Face> faces, std::span<const Reference> references,
               TriangleLeaf& leaf) {
    for (std::size_t lane = 0; lane < node_width; ++lane) {
        std::array<Vec3, 3> corners{Vec3{nan, nan, nan}, Vec3{nan, nan, nan}, Vec3{nan, nan, nan}};
        std::uint32_t face = 0;
        if (lane < references.size()) {
            face = references[lane].face();
            const auto corner = [&](std::int64_t i) { return vertices[static_cast<std::size_t>(i)]; };
            corners = {corner(faces[face].a), corner(faces[face].b), corner(faces[face].c)};
        }
        for (std::size_t i = 0; i < 3; ++i) {
            leaf.corner[i][0][lane] = corners[i].x;
            leaf.corner[i][1][lane] = corners[i].y;
            leaf.corner[i][2][lane] = corners[i].z;
        }
        leaf.face[lane] = static_cast<std::int32_t>(face);
    }
}

}  // namespace

/// A subtree: its nodes, the first is its root, and the references of each leaf.
class TriangleBvh::Builder {
public:
    /// Makes the root, then the subtree of each of its children on its own, whatever the number of threads.
    void build(const Range& whole, int threads) {
        const std::array<Range, node_width> children = split_node(whole, 0);
        std::array<Builder, node_width> below;
        parallel_for(node_width, threads, 1, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                if (children[i].count() > node_width) below[i].add_node(children[i], 1);
            }
        });
        add_boxes(children);
        for (std::size_t i = 0; i < node_width; ++i) {
            if (children[i].count() == 0) continue;
            if (children[i].count() <= node_width) nodes[0].child[i] = ~add_leaf(children[i]);
            else nodes[0].child[i] = append(below[i]);
        }
    }

    using Leaf = std::span<const Reference>;
    std::vector<BvhNode> nodes;
    std::vector<Leaf> leaves;

private:
    /// Splits the range with the largest surface, below sah_depth the most triangles, until each child has one.
    static std::array<Range, node_width> split_node(const Range& whole, int depth) {
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
        return children;
    }

    std::int32_t add_node(const Range& whole, int depth) {
        const std::array<Range, node_width> children = split_node(whole, depth);
        const std::size_t node = add_boxes(children);
        for (std::size_t i = 0; i < node_width; ++i) {
            if (children[i].count() == 0) continue;
            const bool is_leaf = children[i].count() <= node_width;
            const std::int32_t child = is_leaf ? ~add_leaf(children[i]) : add_node(children[i], depth + 1);
            nodes[node].child[i] = child;
        }
        return static_cast<std::int32_t>(node);
    }

    /// A node that does not lead anywhere yet.
    std::size_t add_boxes(const std::array<Range, node_width>& children) {
        BvhNode& node = nodes.emplace_back();
        for (std::size_t i = 0; i < node_width; ++i) {
            for (int axis = 0; axis < 3; ++axis) {
                node.boxes.low[axis][i] = children[i].box.low[axis];
                node.boxes.high[axis][i] = children[i].box.high[axis];
            }
            node.child[i] = 0;
        }
        return nodes.size() - 1;
    }

    std::int32_t add_leaf(const Range& range) {
        leaves.emplace_back(range.begin, range.end);
        return static_cast<std::int32_t>(leaves.size() - 1);
    }

    /// Takes over another subtree; returns where its root is now.
    std::int32_t append(const Builder& other) {
        const auto first_node = static_cast<std::int32_t>(nodes.size());
        const auto first_leaf = static_cast<std::int32_t>(leaves.size());
        for (BvhNode node : other.nodes) {
            for (std::int32_t& child : node.child) child += child < 0 ? -first_leaf : first_node;
            nodes.push_back(node);
        }
        leaves.insert(leaves.end(), other.leaves.begin(), other.leaves.end());
        return first_node;
    }
};

TriangleBvh::TriangleBvh(Points vertices, std::span<const Face> faces, int threads) : size_(faces.size()) {
    if (faces.empty()) throw std::invalid_argument("faces must not be empty");
    if (faces.size() > static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max()))
        throw std::invalid_argument("faces must number less than 2^31");
    const auto references = std::make_unique_for_overwrite<Reference[]>(faces.size());
    parallel_for(faces.size(), threads, 4096, 1 << 15, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) {
            const auto corner = [&](std::int64_t at) {
                return with_index(corner_of(vertices, at), static_cast<std::uint32_t>(i));
            };
            const Float4 a = corner(faces[i].a), b = corner(faces[i].b), c = corner(faces[i].c);
            references[i] = {min(a, min(b, c)), max(a, max(b, c))};
            references[i].high[3] = a[3];
        }
    });
    Builder builder;
    const Range whole(references.get(), references.get() + faces.size());
    builder.build(whole, faces.size() < worth_a_thread ? 1 : threads);
    nodes_ = std::move(builder.nodes);
    leaves_.resize(builder.leaves.size());
    parallel_for(leaves_.size(), threads, 1024, 4096, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) fill_leaf(vertices, faces, builder.leaves[i], leaves_[i]);
    });
}

void TriangleBvh::first_hits(Points origins, Points directions, std::span<RayHit> found, int threads) const {
    parallel_for(origins.size(), threads, 256, rays_worth_a_thread(size_), [&](std::size_t begin, std::size_t end) {
        kernels().first_hits(view(), origins.data() + begin, directions.data() + begin, end - begin,
                             found.data() + begin);
    });
}

void TriangleBvh::closest_points(Points queries, std::span<SurfacePoint> found, int threads) const {
    const std::vector<std::uint32_t> order = spatial_order(queries);
    parallel_for(queries.size(), threads, 256, 512, [&](std::size_t begin, std::size_t end) {
        kernels().closest_points(view(), queries.data(), order.data() + begin, end - begin, found.data());
    });
}

}  // namespace nepa3d
