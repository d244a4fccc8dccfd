#include <pybind11/stl.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>
#include <variant>

#include "arguments.hpp"
#include "completion_sample.hpp"
#include "parallel.hpp"

namespace nepa3d::bindings {

namespace {

ViewRow make_view_row(const std::string& name, const std::vector<std::pair<std::string, bool>>& distances,
                      bool cloud_distances, const std::vector<std::string>& rays, bool voxels) {
    ViewRow row{.name = name, .distances = {}, .cloud_distances = cloud_distances, .rays = rays, .voxels = voxels};
    for (const auto& [key, recompute_invalid] : distances) row.distances.push_back({key, recompute_invalid});
    require_complete(row);
    return row;
}

/// The grid that `view` needs: none, unless its answers are those of voxels.
std::optional<VoxelGrid> voxel_grid(const ViewRow& view, std::array<int, 3> voxel) {
    const VoxelGrid grid{.side = between(voxel[0], 1, 2048, "voxel grid"),
                         .dilate = at_least(voxel[1], 0, "voxel dilate"),
                         .max_steps = at_least(voxel[2], 0, "voxel max_steps")};
    return view.voxels ? std::optional(grid) : std::nullopt;
}

SampleSettings make_settings(const ViewRow& view, int n_point, int n_ray, bool qa, bool eos, double drop_ray_prob,
                             bool force_missing_ray, double uniform_prob, bool uniform_questions,
                             std::array<int, 3> voxel) {
    return {.view = view,
            .n_point = static_cast<std::size_t>(at_least(n_point, 0, "n_point")),
            .n_ray = static_cast<std::size_t>(at_least(n_ray, 0, "n_ray")),
            .qa = qa,
            .eos = eos,
            .drop_ray_prob = drop_ray_prob,
            .force_missing_ray = force_missing_ray,
            .uniform_prob = uniform_prob,
            .uniform_questions = uniform_questions,
            .voxel = voxel_grid(view, voxel)};
}

QuerySource query_source_of(const std::string& name) {
    if (name == "pool") return QuerySource::pool;
    if (name == "pool_disjoint") return QuerySource::pool_disjoint;
    if (name == "grid") return QuerySource::grid;
    throw py::value_error("query_source must be pool, pool_disjoint or grid, got " + name);
}

CompletionSettings make_completion_settings(const ViewRow& view, int n_context, int n_query, bool qa, bool eos,
                                            const std::string& query_source, bool mesh_target, bool uniform_questions,
                                            bool with_context, std::array<int, 3> voxel) {
    return {.view = view,
            .n_context = static_cast<std::size_t>(at_least(n_context, 1, "n_context")),
            .n_query = static_cast<std::size_t>(at_least(n_query, 1, "n_query")),
            .qa = qa,
            .eos = eos,
            .source = query_source_of(query_source),
            .mesh_target = mesh_target,
            .uniform_questions = uniform_questions,
            .with_context = with_context,
            .voxel = voxel_grid(view, voxel)};
}

/// A file by its path, as the file system has it, or the path of a shape, its shard, and its offset and size there.
using Place = std::variant<py::bytes, std::tuple<py::bytes, py::bytes, std::uint64_t, std::uint64_t>>;
using Places = std::vector<Place>;
using Settings = std::vector<const SampleSettings*>;
using Faults = std::vector<std::pair<std::size_t, std::string>>;
using Features = py::array_t<float, py::array::c_style>;
using Types = py::array_t<std::int64_t, py::array::c_style>;

void require_room(const Features& features, const Types& types, std::size_t count, std::size_t length) {
    if (features.ndim() != 3 || features.shape(0) != static_cast<py::ssize_t>(count) ||
        features.shape(1) != static_cast<py::ssize_t>(length) ||
        features.shape(2) != static_cast<py::ssize_t>(feature_dim))
        throw py::value_error("features must have shape (" + std::to_string(count) + ", " + std::to_string(length) +
                              ", " + std::to_string(feature_dim) + "), got " + shape_of(features));
    if (types.ndim() != 2 || types.shape(0) != features.shape(0) || types.shape(1) != features.shape(1))
        throw py::value_error("types must have the first two sizes of features, got " + shape_of(types));
}

std::vector<NpzPlace> places_of(const Places& given) {
    std::vector<NpzPlace> places;
    places.reserve(given.size());
    for (const Place& place : given) {
        if (const auto* const path = std::get_if<py::bytes>(&place)) {
            places.emplace_back(std::string(*path));
        } else {
            const auto& [name, shard, offset, size] = std::get<1>(place);
            places.emplace_back(std::string(name), std::string(shard), NpzPlace::Part{offset, size});
        }
    }
    return places;
}

/// `read(i)` for each of `count` samples, without the GIL; the samples that could not be read, and why.
template <class Read>
Faults read_each(std::size_t count, int threads, const Read& read) {
    std::vector<std::optional<std::string>> faults(count);
    {
        const py::gil_scoped_release unlocked;
        parallel_for(count, at_least(threads, 1, "threads"), 1, 1, [&](std::size_t begin, std::size_t end) {
            for (std::size_t i = begin; i < end; ++i) {
                try {
                    read(i);
                } catch (const FileFault& fault) {
                    faults[i] = fault.what();
                } catch (const std::invalid_argument& fault) {  // of a kernel
                    faults[i] = fault.what();
                }
            }
        });
    }
    Faults found;
    for (std::size_t i = 0; i < count; ++i) {
        if (faults[i]) found.emplace_back(i, *faults[i]);
    }
    return found;
}

/// Fills features (B, T, 15) and types (B, T), a sample a path; returns the samples that could not be read, and why.
template <class DrawsOf>
Faults read_all(const Places& paths, const Settings& settings, Features& features, Types& types, int threads,
                const DrawsOf& draws_of) {
    const std::size_t count = paths.size();
    same_length(settings.size(), "settings", count, "paths");
    if (count == 0) return {};
    const std::size_t length = settings.front()->length();
    for (const SampleSettings* each : settings) same_length(each->length(), "a sample", length, "the first sample");
    require_room(features, types, count, length);
    float* const features_out = features.mutable_data();
    std::int64_t* const types_out = types.mutable_data();
    const std::vector<NpzPlace> files = places_of(paths);
    return read_each(count, threads, [&](std::size_t i) {
        const Tokens tokens{{features_out + i * length * feature_dim, length * feature_dim},
                            {types_out + i * length, length}};
        read_sample(files[i], *settings[i], draws_of(i), tokens);
    });
}

Faults read_training_samples(const Places& paths, const Settings& settings, std::uint64_t seed, std::uint32_t epoch,
                             const std::vector<std::uint32_t>& indices, Features features, Types types, int threads) {
    same_length(indices.size(), "indices", paths.size(), "paths");
    return read_all(paths, settings, features, types, threads,
                    [&](std::size_t i) { return TrainingDraws(seed, epoch, indices[i]); });
}

Faults read_evaluation_samples(const Places& paths, const Settings& settings, const std::vector<std::uint32_t>& seeds,
                               Features features, Types types, int threads) {
    same_length(seeds.size(), "seeds", paths.size(), "paths");
    return read_all(paths, settings, features, types, threads,
                    [&](std::size_t i) { return EvaluationDraws(seeds[i]); });
}

/// Fills features (B, T, 15), types (B, T), target and nearest_copy (B, Q), the last not without a context.
Faults read_completion_samples(const Places& paths, const Places& contexts, const CompletionSettings& settings,
                               const std::vector<std::uint32_t>& seeds, Features features, Types types, Features target,
                               Features nearest_copy, int threads) {
    const std::size_t count = paths.size(), length = settings.length(), queries = settings.n_query;
    same_length(contexts.size(), "contexts", count, "paths");
    same_length(seeds.size(), "seeds", count, "paths");
    require_room(features, types, count, length);
    for (const auto& [name, room] : {std::pair{"target", &target}, std::pair{"nearest_copy", &nearest_copy}}) {
        if (room->ndim() != 2 || room->shape(0) != static_cast<py::ssize_t>(count) ||
            room->shape(1) != static_cast<py::ssize_t>(queries))
            throw py::value_error(std::string(name) + " must have shape (" + std::to_string(count) + ", " +
                                  std::to_string(queries) + "), got " + shape_of(*room));
    }
    float* const features_out = features.mutable_data();
    std::int64_t* const types_out = types.mutable_data();
    float* const target_out = target.mutable_data();
    float* const copy_out = nearest_copy.mutable_data();
    const std::vector<NpzPlace> files = places_of(paths), shown = places_of(contexts);
    return read_each(count, threads, [&](std::size_t i) {
        const CompletionRoom room{
            {{features_out + i * length * feature_dim, length * feature_dim}, {types_out + i * length, length}},
            {target_out + i * queries, queries},
            {copy_out + i * queries, queries}};
        read_completion(files[i], shown[i], settings, EvaluationDraws(seeds[i]), room);
    });
}

}  // namespace

void bind_samples(py::module_& module) {
    py::class_<ViewRow>(module, "ViewRow")
        .def(py::init(&make_view_row), py::arg("name"), py::kw_only(), py::arg("distances"), py::arg("cloud_distances"),
             py::arg("rays"), py::arg("voxels"));
    py::class_<SampleSettings>(module, "SampleSettings")
        .def(py::init(&make_settings), py::arg("view"), py::arg("n_point"), py::arg("n_ray"), py::kw_only(),
             py::arg("qa"), py::arg("eos"), py::arg("drop_ray_prob"), py::arg("force_missing_ray"),
             py::arg("uniform_prob"), py::arg("uniform_questions"), py::arg("voxel"));
    module.def("read_training_samples", &read_training_samples, py::arg("paths"), py::arg("settings"), py::kw_only(),
               py::arg("seed"), py::arg("epoch"), py::arg("indices"), py::arg("features").noconvert(),
               py::arg("types").noconvert(), py::arg("threads") = 1);
    module.def("read_evaluation_samples", &read_evaluation_samples, py::arg("paths"), py::arg("settings"),
               py::kw_only(), py::arg("seeds"), py::arg("features").noconvert(), py::arg("types").noconvert(),
               py::arg("threads") = 1);
    py::class_<CompletionSettings>(module, "CompletionSettings")
        .def(py::init(&make_completion_settings), py::arg("view"), py::arg("n_context"), py::arg("n_query"),
             py::kw_only(), py::arg("qa"), py::arg("eos"), py::arg("query_source"), py::arg("mesh_target"),
             py::arg("uniform_questions"), py::arg("with_context"), py::arg("voxel"));
    module.def("read_completion_samples", &read_completion_samples, py::arg("paths"), py::arg("contexts"),
               py::arg("settings"), py::kw_only(), py::arg("seeds"), py::arg("features").noconvert(),
               py::arg("types").noconvert(), py::arg("target").noconvert(), py::arg("nearest_copy").noconvert(),
               py::arg("threads") = 1);
}

}  // namespace nepa3d::bindings
