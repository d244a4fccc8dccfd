/// A cached shape as a sequence of tokens: rows of its pools, drawn, ordered and laid out, and nothing else of it read.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "draws.hpp"
#include "npz.hpp"

namespace nepa3d {

/// Which answers a sample knows; python/nepa3d/backends says the same of whole pools.
enum class Backend { mesh, pointcloud, pointcloud_meshray, pointcloud_noray, udfgrid, voxel };

constexpr std::size_t feature_dim = 15;

/// Type ids and columns are those of python/nepa3d/token/schema.py.
enum class Token : std::int64_t { bos, point, ray, missing_ray, eos, q_point, a_point, q_ray, a_ray };

/// How a shape becomes a sequence.
struct SampleSettings {
    Backend backend;
    std::size_t n_point, n_ray;
    bool qa, eos;
    double drop_ray_prob;  ///< in training, of leaving out all rays of a sample
    bool force_missing_ray;
    int voxel_grid, voxel_dilate, voxel_max_steps;

    std::size_t length() const { return 1 + (n_point + n_ray) * (qa ? 2 : 1) + (eos ? 1 : 0); }
};

/// Room for one sample: features (T, 15) and types (T).
struct Tokens {
    std::span<float> features;
    std::span<std::int64_t> types;
};

/// Reads one sample of the cache file `path`: BOS, points along the Morton curve, rays by direction, optional EOS.
/// Throws FileFault on a file that cannot be used.
void read_sample(const std::string& path, const SampleSettings& settings, TrainingDraws draws, Tokens tokens);
void read_sample(const std::string& path, const SampleSettings& settings, EvaluationDraws draws, Tokens tokens);

}  // namespace nepa3d
