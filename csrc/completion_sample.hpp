/// The token sequence of the completion probe: a context with its distances, then queries whose distances are asked.
/// python/nepa3d/analysis/completion_sequence.py is its plain twin.
#pragma once

#include <cstddef>
#include <optional>
#include <span>
#include <string>

#include "shape_sample.hpp"

namespace nepa3d {

/// Where queries come from: the pool, the pool without the context's points, or the centres of the distance grid.
enum class QuerySource { pool, pool_disjoint, grid };

/// What a completion sequence is made of.
struct CompletionSettings {
    ViewRow view;  ///< of the context
    std::size_t n_context, n_query;
    bool qa, eos;
    QuerySource source;
    bool mesh_target;  ///< distances to the mesh, else those of the distance grid
    bool uniform_questions;  ///< take points from the uniform part of a pool only
    bool with_context;  ///< without: its rows are drawn and left out
    std::optional<VoxelGrid> voxel;  ///< of a view of voxels

    std::size_t length() const {
        return 1 + ((with_context ? n_context : 0) + n_query) * stride_of(qa) + (eos ? 1 : 0);
    }
};

/// Room for one sample: its tokens, the true distances of its queries (Q), and for each the distance that the nearest
/// point of the context was answered (Q); the last is left alone without a context.
struct CompletionRoom {
    Tokens tokens;
    std::span<float> target, nearest_copy;
};

/// Reads one sample: BOS, context, queries, optional EOS; both along the Morton curve, the answers of the queries
/// blank. The queries are of the cache file at `place`, the context of the one at `context_place`. Draws first the context's rows, then
/// the queries'. Throws FileFault on a file that cannot be used; distances in `target` may still not be finite.
void read_completion(const NpzPlace& place, const NpzPlace& context_place, const CompletionSettings& settings,
                     EvaluationDraws draws, CompletionRoom room);

}  // namespace nepa3d
