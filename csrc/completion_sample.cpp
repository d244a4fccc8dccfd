#include "completion_sample.hpp"

#include <algorithm>
#include <utility>
#include <vector>

#include "kdtree.hpp"
#include "ordering.hpp"

namespace nepa3d {

namespace {

/// What `read` gives; a fault names the file of the context.
template <class Read>
auto of_context(const NpzPlace& place, bool own, const Read& read) {
    try {
        return read();
    } catch (const FileFault& fault) {
        throw FileFault((own ? "" : "context " + place.name + ": ") + fault.what());
    }
}

/// Rows of the pool that the context left, in the order of the pool.
Rows drawn_beside(EvaluationDraws& draws, std::size_t pool, const Rows& context, std::size_t count) {
    std::vector<bool> taken(pool, false);
    for (const std::uint32_t row : context) {
        if (row < pool) taken[row] = true;  // another shape's pool may be longer
    }
    Rows free;
    for (std::size_t row = 0; row < pool; ++row) {
        if (!taken[row]) free.push_back(static_cast<std::uint32_t>(row));
    }
    if (free.empty())
        throw FileFault("the context takes all " + std::to_string(pool) +
                        " points of the pool, none is left to ask for");
    Rows rows = drawn(draws, free.size(), count, "n_query");
    for (std::uint32_t& row : rows) row = free[row];
    return rows;
}

/// Cells of the distance grid, whose centres are the queries.
AnsweredPoints grid_points(OpenShape& shape, EvaluationDraws& draws, std::size_t count) {
    const Array grid = shape.file.array("udf_grid");
    const ArrayHeader& header = grid.header();
    const std::size_t side = header.shape[0];
    if (header.rank != 3 || header.kind != 'f' || side <= 1 || header.shape[1] != side || header.shape[2] != side) {
        std::string sizes;
        for (int axis = 0; axis < header.rank; ++axis)
            sizes += (axis > 0 ? ", " : "") + std::to_string(header.shape[static_cast<std::size_t>(axis)]);
        throw FileFault("has no UDF grid to ask for, its udf_grid has shape (" + sizes + ") and a dtype of kind " +
                        header.kind);
    }
    const Rows cells = drawn(draws, side * side * side, count, "n_query");
    Rows places = cells;
    const auto s = static_cast<std::uint32_t>(side);
    if (header.fortran) {  // where the cells lie in memory
        for (std::uint32_t& cell : places) cell = cell % s * s * s + cell / s % s * s + cell / (s * s);
    }
    std::vector<Vec3> xyz(count);
    const double spacing = 2.0 / static_cast<double>(side);
    const auto centre = [&](std::uint32_t i) { return static_cast<float>((i + 0.5) * spacing - 1.0); };
    std::transform(cells.begin(), cells.end(), xyz.begin(), [&](std::uint32_t cell) {
        return Vec3{centre(cell / (s * s)), centre(cell / s % s), centre(cell % s)};
    });
    const std::vector<std::int64_t> order = morton_order(xyz);
    return {in_order(xyz, order), scalars_of(grid, in_order(places, order))};
}

AnsweredPoints pool_points(OpenShape& shape, const CompletionSettings& s, const Array& xyz_pool, Rows rows) {
    const char* const key = s.mesh_target ? "pt_dist_pool" : "pt_dist_udf_pool";
    const Array stored = shape.pools.scalars(key, 'P');  // none stands in for it
    std::vector<Vec3> xyz = along_the_curve(xyz_pool, rows);
    return {std::move(xyz), scalars_of(stored, rows)};
}

}  // namespace

void read_completion(const NpzPlace& place, const NpzPlace& context_place, const CompletionSettings& s,
                     EvaluationDraws draws, CompletionRoom room) {
    const bool own_context = context_place.name == place.name;
    const std::optional<VoxelGrid> context_grid = s.with_context ? s.voxel : std::nullopt;
    OpenShape shape(place, own_context ? context_grid : std::nullopt);
    std::optional<OpenShape> other;
    const auto open_pool = [&] {
        if (!own_context) other.emplace(context_place, context_grid);
        return (other ? *other : shape).pools.vectors("pt_xyz_pool", 'P');
    };
    const Array context_pool = of_context(context_place, own_context, open_pool);
    OpenShape& shown = other ? *other : shape;
    const std::size_t shown_points =
        of_context(context_place, own_context, [&] { return questions_of(context_pool, s.uniform_questions); });
    const Rows context_rows = drawn(draws, shown_points, s.n_context, "n_context");
    AnsweredPoints queries;
    if (s.source == QuerySource::grid) {
        queries = grid_points(shape, draws, s.n_query);
    } else {
        std::optional<Array> own;
        if (other) own = shape.pools.vectors("pt_xyz_pool", 'P');
        const Array& asked = own ? *own : context_pool;
        const std::size_t pool = other ? questions_of(asked, s.uniform_questions) : shown_points;
        Rows rows = s.source == QuerySource::pool_disjoint ? drawn_beside(draws, pool, context_rows, s.n_query)
                                                           : drawn(draws, pool, s.n_query, "n_query");
        queries = pool_points(shape, s, asked, std::move(rows));
    }

    clear_tokens(room.tokens, s.eos);
    std::size_t first = 1;
    if (s.with_context) {
        const AnsweredPoints context = of_context(
            context_place, own_context, [&] { return answered_points(shown, s.view, context_pool, context_rows); });
        put_points(context, s.qa, room.tokens.queries(first, s.n_context, s.qa));
        first += s.n_context * stride_of(s.qa);
        std::vector<Nearest> nearest(s.n_query);
        KdTree(context.xyz).nearest(queries.xyz, nearest, 1);
        std::transform(nearest.begin(), nearest.end(), room.nearest_copy.begin(),
                       [&](const Nearest& n) { return context.distance[n.index]; });
    }
    std::copy(queries.distance.begin(), queries.distance.end(), room.target.begin());
    std::fill(queries.distance.begin(), queries.distance.end(), 0.0f);
    put_points(queries, s.qa, room.tokens.queries(first, s.n_query, s.qa));
    require_finite_sample(room.tokens.features);
}

}  // namespace nepa3d
