#include "shape_sample.hpp"

#include <algorithm>

#include "ordering.hpp"

namespace nepa3d {

namespace {

void put(std::span<float> features, std::size_t token, std::size_t first, Vec3 v) {
    float* const at = features.data() + token * feature_dim + first;
    at[0] = v.x, at[1] = v.y, at[2] = v.z;
}

/// Throws FileFault if a direction has no length: the caches of scans hold such rays, which hit nothing.
void require_rays(Points directions) {
    const bool blank = std::any_of(directions.begin(), directions.end(),
                                   [](const Vec3& d) { return d.x == 0.0f && d.y == 0.0f && d.z == 0.0f; });
    if (blank)
        throw FileFault(
            "ray_d_pool has directions of length 0, as that of a scan, which has no rays: "
            "choose pointcloud_noray, or n_ray 0");
}

template <class Draws>
void add_rays(OpenShape& shape, const SampleSettings& s, Draws& draws, Tokens tokens) {
    Pools& pools = shape.pools;
    const Array origins = pools.vectors("ray_o_pool", 'R'), directions = pools.vectors("ray_d_pool", 'R');
    Rows rows = drawn(draws, pools.length('R'), s.n_ray, "n_ray");
    const std::vector<Vec3> unordered = vectors_of(directions, rows);
    require_finite(unordered, "ray_d_pool");
    require_rays(unordered);
    const std::vector<std::int64_t> order = ray_direction_order(unordered);
    rows = in_order(rows, order);
    const std::vector<Vec3> origin = vectors_of(origins, rows), direction = in_order(unordered, order);
    std::vector<float> hit, t;
    std::vector<Vec3> normal;
    if (s.view.voxels) {
        require_finite(origin, "ray_o_pool");
        shape.voxel.value().cast(origin, direction, hit, t, normal);
    } else {
        const std::string& suffix = ray_suffix(pools, s.view);
        hit = scalars_of(pools.flags("ray_hit_" + suffix, 'R'), rows);
        t = scalars_of(pools.scalars("ray_t_" + suffix, 'R'), rows);
        normal = vectors_of(pools.vectors("ray_n_" + suffix, 'R'), rows);
    }
    const std::size_t stride = stride_of(s.qa), answer = stride - 1;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const std::size_t question = i * stride, reply = question + answer;
        const bool struck = hit[i] > 0.5f;
        put(tokens.features, question, column::ray_origin, origin[i]);
        put(tokens.features, question, column::ray_direction, direction[i]);
        if (struck) put(tokens.features, reply, column::xyz, origin[i] + t[i] * direction[i]);
        tokens.features[reply * feature_dim + column::ray_t] = t[i];
        tokens.features[reply * feature_dim + column::ray_hit] = hit[i];
        if (struck) put(tokens.features, reply, column::ray_normal, normal[i]);
        tokens.types[question] = static_cast<std::int64_t>(s.qa ? Token::q_ray : Token::ray);
        if (s.qa) tokens.types[reply] = static_cast<std::int64_t>(Token::a_ray);
    }
}

template <class Draws>
void read(const NpzPlace& place, const SampleSettings& s, Draws& draws, bool rays_missing, bool uniform,
          Tokens tokens) {
    OpenShape shape(place, s.voxel);
    clear_tokens(tokens, s.eos);
    if (s.n_point > 0) {
        const Array xyz_pool = shape.pools.vectors("pt_xyz_pool", 'P');
        Rows rows = drawn(draws, questions_of(xyz_pool, uniform), s.n_point, "n_point");
        const AnsweredPoints points = answered_points(shape, s.view, xyz_pool, std::move(rows));
        put_points(points, s.qa, tokens.queries(1, s.n_point, s.qa));
    }
    const Tokens rays = tokens.queries(1 + s.n_point * stride_of(s.qa), s.n_ray, s.qa);
    if (rays_missing) std::fill(rays.types.begin(), rays.types.end(), static_cast<std::int64_t>(Token::missing_ray));
    else if (s.n_ray > 0) add_rays(shape, s, draws, rays);
    require_finite_sample(tokens.features);
}

bool has_no_rays(const SampleSettings& s) { return s.force_missing_ray || !s.view.has_rays(); }

}  // namespace

Tokens Tokens::queries(std::size_t first, std::size_t count, bool qa) const {
    const std::size_t tokens = count * stride_of(qa);
    return {features.subspan(first * feature_dim, tokens * feature_dim), types.subspan(first, tokens)};
}

void clear_tokens(Tokens tokens, bool eos) {
    std::fill(tokens.features.begin(), tokens.features.end(), 0.0f);
    tokens.types.front() = static_cast<std::int64_t>(Token::bos);
    if (eos) tokens.types.back() = static_cast<std::int64_t>(Token::eos);
}

void put_points(const AnsweredPoints& points, bool qa, Tokens tokens) {
    const std::size_t stride = stride_of(qa), answer = stride - 1;
    for (std::size_t i = 0; i < points.xyz.size(); ++i) {
        const std::size_t token = i * stride;
        put(tokens.features, token, column::xyz, points.xyz[i]);
        tokens.features[(token + answer) * feature_dim + column::point_distance] = points.distance[i];
        tokens.types[token] = static_cast<std::int64_t>(qa ? Token::q_point : Token::point);
        if (qa) tokens.types[token + 1] = static_cast<std::int64_t>(Token::a_point);
    }
}

void read_sample(const NpzPlace& place, const SampleSettings& settings, TrainingDraws draws, Tokens tokens) {
    const bool dropped = draws.uniform() < settings.drop_ray_prob;
    const bool uniform = settings.uniform_prob > 0 && draws.uniform() < settings.uniform_prob;
    read(place, settings, draws, dropped || has_no_rays(settings), uniform || settings.uniform_questions, tokens);
}

void read_sample(const NpzPlace& place, const SampleSettings& settings, EvaluationDraws draws, Tokens tokens) {
    read(place, settings, draws, has_no_rays(settings), settings.uniform_questions, tokens);
}

}  // namespace nepa3d
