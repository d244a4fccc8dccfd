/// A cached shape as a sequence of tokens: rows of its pools, drawn, ordered and laid out, and nothing else of it read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "draws.hpp"
#include "pool_view.hpp"

namespace nepa3d {

constexpr std::size_t feature_dim = 15;

/// Type ids and columns are those of python/nepa3d/token/schema.py.
enum class Token : std::int64_t { bos, point, ray, missing_ray, eos, q_point, a_point, q_ray, a_ray };

/// Tokens a query takes: in Q/A form its answer has one of its own.
constexpr std::size_t stride_of(bool qa) { return qa ? 2 : 1; }

/// How a shape becomes a sequence.
struct SampleSettings {
    Backend backend;
    std::size_t n_point, n_ray;
    bool qa, eos;
    double drop_ray_prob;  ///< in training, of leaving out all rays of a sample
    bool force_missing_ray;
    VoxelGrid voxel;

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

/// Reads one sample of the cache file `path`: BOS, points along the Morton curve, rays by direction, optional EOS.
/// Throws FileFault on a file that cannot be used.
void read_sample(const std::string& path, const SampleSettings& settings, TrainingDraws draws, Tokens tokens);
void read_sample(const std::string& path, const SampleSettings& settings, EvaluationDraws draws, Tokens tokens);

}  // namespace nepa3d
