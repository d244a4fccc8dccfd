/// A cached shape as a sequence of tokens: rows of its pools, drawn, ordered and laid out, and nothing else of it read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "draws.hpp"
#include "pool_view.hpp"
#include "token_layout.hpp"

namespace nepa3d {

/// How a shape becomes a sequence.
struct SampleSettings {
    ViewRow view;
    std::size_t n_point, n_ray;
    bool qa, eos;
    double drop_ray_prob;  ///< in training, of leaving out all rays of a sample
    bool force_missing_ray;
    double uniform_prob;  ///< in training, of asking a sample's points in the uniform part of the pool only
    bool uniform_questions;  ///< ask them there always
    std::optional<VoxelGrid> voxel;  ///< of a view of voxels

    std::size_t length() const { return 1 + (n_point + n_ray) * stride_of(qa) + (eos ? 1 : 0); }
};

/// Room for one sample: features (T, 15) and types (T).
struct Tokens {
    std::span<float> features;
    std::span<std::int64_t> types;

    /// Those of `count` queries, from token `first` on.
    Tokens queries(std::size_t first, std::size_t count, bool qa) const;
};

/// Blank features; BOS, and EOS where there is one.
void clear_tokens(Tokens tokens, bool eos);
/// Points with their answers into blank tokens.
void put_points(const AnsweredPoints& points, bool qa, Tokens tokens);

/// Reads one sample of the cache file at `place`: BOS, points along the Morton curve, rays by direction, optional EOS.
/// Throws FileFault on a file that cannot be used.
void read_sample(const NpzPlace& place, const SampleSettings& settings, TrainingDraws draws, Tokens tokens);
void read_sample(const NpzPlace& place, const SampleSettings& settings, EvaluationDraws draws, Tokens tokens);

}  // namespace nepa3d
