#include "query_pools.hpp"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "distance_transform.hpp"
#include "kdtree.hpp"
#include "ordering.hpp"
#include "sampling.hpp"
#include "simd/kernels.hpp"
#include "voxel.hpp"

namespace nepa3d {

namespace {

Vec3 within_cube(Vec3 p) {
    const auto clip = [](float x) { return std::min(std::max(x, -1.0f), 1.0f); };
    return {clip(p.x), clip(p.y), clip(p.z)};
}

/// Uniform queries, then surface samples with Gaussian jitter.
void place_queries(const PoolDraws& draws, float sigma, std::span<const Vec3> points, std::span<Vec3> queries) {
    std::span<Vec3> rest = queries;
    for (std::size_t i = 0; i < draws.anywhere.size(); ++i)
        queries[i] = within_cube(2.0f * draws.anywhere[i] - Vec3{1, 1, 1});
    rest = queries.subspan(draws.anywhere.size());
    for (std::size_t i = 0; i < rest.size(); ++i)
        rest[i] = within_cube(sigma * draws.jitter[i] + corner_of(points, draws.around[i], "around"));
}

/// The unit normal of a face, by its winding; zero if vertices rounded to float32 leave it without area.
Vec3 face_normal(Points vertices, const Face& face) {
    const Vec3d a = to_double(corner_of(vertices, face.a));
    const Vec3d normal = cross(to_double(corner_of(vertices, face.b)) - a, to_double(corner_of(vertices, face.c)) - a);
    const double length = std::sqrt(dot(normal, normal));
    if (!(length > 0)) return {0, 0, 0};
    return to_float({normal.x / length, normal.y / length, normal.z / length});
}

void answer_rays_on_mesh(Points vertices, std::span<const Face> faces, const TriangleBvh& bvh, const PoolDraws& draws,
                         const PoolRays& out, int threads) {
    std::vector<RayHit> found(draws.origins.size());
    bvh.first_hits(draws.origins, draws.directions, found, threads);
    for (std::size_t i = 0; i < found.size(); ++i) {
        const bool hit = found[i].face >= 0;
        out.hit[i] = hit ? 1.0f : 0.0f;
        out.t[i] = hit ? found[i].t : 0.0f;
        out.normal[i] = hit ? face_normal(vertices, faces[static_cast<std::size_t>(found[i].face)]) : Vec3{0, 0, 0};
    }
}

/// A hit's normal is that of the point of the cloud nearest to it.
void answer_rays_in_cloud(std::span<const std::uint8_t> occupancy, const KdTree& cloud, std::span<const Vec3> normals,
                          const PoolDraws& draws, const PoolSizes& sizes, const PoolRays& out, int threads) {
    std::vector<VoxelHit> found(draws.origins.size());
    const int steps = sizes.max_steps > 0 ? sizes.max_steps : 3 * sizes.cloud.side;
    VoxelRays(occupancy, sizes.cloud.side).first_hits(draws.origins, draws.directions, steps, found, threads);
    std::vector<Vec3> places;
    std::vector<std::size_t> rays;
    for (std::size_t i = 0; i < found.size(); ++i) {
        out.hit[i] = found[i].hit ? 1.0f : 0.0f;
        out.t[i] = found[i].t;
        out.normal[i] = {0, 0, 0};
        if (!found[i].hit) continue;
        places.push_back(draws.origins[i] + found[i].t * draws.directions[i]);
        rays.push_back(i);
    }
    std::vector<Nearest> nearest(places.size());
    cloud.nearest(places, nearest, threads);
    for (std::size_t i = 0; i < rays.size(); ++i)
        out.normal[rays[i]] = normals[static_cast<std::size_t>(nearest[i].index)];
}

void copy_distances(std::span<const Nearest> found, std::span<float> out) {
    std::transform(found.begin(), found.end(), out.begin(), [](const Nearest& n) { return n.distance; });
}

}  // namespace

void fill_pools(Points vertices, std::span<const Face> faces, const TriangleBvh& bvh, const PoolDraws& draws,
                const PoolSizes& sizes, const Pools& out, int threads) {
    std::vector<Vec3> reference;
    {
        const SurfaceSampler surface(vertices, faces);
        const std::vector<SurfaceSample> samples = surface.sample(draws.surface);
        for (std::size_t i = 0; i < samples.size(); ++i) {
            out.points[i] = samples[i].point;
            out.normals[i] = samples[i].normal;
        }
        if (!draws.reference.empty()) {
            const std::vector<SurfaceSample> more = surface.sample(draws.reference);
            reference.resize(more.size());
            std::transform(more.begin(), more.end(), reference.begin(), [](const SurfaceSample& s) { return s.point; });
        }
    }
    place_queries(draws, sizes.jitter, out.points, out.queries);

    const KdTree cloud(out.points);
    if (draws.reference.empty()) {
        std::vector<SurfacePoint> found(out.queries.size());
        bvh.closest_points(out.queries, found, threads);
        std::transform(found.begin(), found.end(), out.distance.begin(), [](const auto& p) { return p.distance; });
    }
    {
        const std::vector<std::uint32_t> order = spatial_order(out.queries);
        std::vector<Nearest> found(out.queries.size());
        cloud.nearest(out.queries, order, found, threads);
        copy_distances(found, out.cloud_distance);
        if (!draws.reference.empty()) {
            KdTree(reference).nearest(out.queries, order, found, threads);
            copy_distances(found, out.distance);
        }
    }

    const bool field = !out.occupancy.empty(), rays_in_cloud = !out.cloud.hit.empty();
    std::vector<std::uint8_t> occupancy;
    if (field) {
        occupancy = voxelize(out.points, sizes.field.side, sizes.field.dilate);
        std::copy(occupancy.begin(), occupancy.end(), out.occupancy.begin());
        const auto side = static_cast<std::size_t>(sizes.field.side);
        const double spacing = 2.0 / sizes.field.side;
        const std::vector<float> distance =
            distance_transform(occupancy, {side, side, side}, {spacing, spacing, spacing}, threads);
        kernels().to_half(distance.data(), out.field.data(), distance.size());
        for (std::size_t i = 0; i < out.queries.size(); ++i)
            out.field_distance[i] = trilinear_sample(distance, sizes.field.side, out.queries[i]);
    }
    answer_rays_on_mesh(vertices, faces, bvh, draws, out.mesh, threads);
    if (rays_in_cloud) {
        if (!field || sizes.cloud != sizes.field)
            occupancy = voxelize(out.points, sizes.cloud.side, sizes.cloud.dilate);
        answer_rays_in_cloud(occupancy, cloud, out.normals, draws, sizes, out.cloud, threads);
    }
}

}  // namespace nepa3d
