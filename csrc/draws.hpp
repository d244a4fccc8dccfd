/// Which rows of a pool a sample takes.
#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

namespace nepa3d {

/// The draws of a training sample: a function of (seed, epoch, index) on every machine, by Philox4x32-10 (Salmon et
/// al.: Parallel Random Numbers: As Easy as 1, 2, 3, 2011) with the seed as its key.
class TrainingDraws {
public:
    TrainingDraws(std::uint64_t seed, std::uint32_t epoch, std::uint32_t index);

    /// In [0, 1), with 32 bits.
    double uniform() { return next() * 0x1p-32; }
    /// `count` rows below `pool`, without replacement (Floyd's sampling) unless the pool is smaller.
    std::vector<std::uint32_t> rows(std::uint32_t pool, std::size_t count);

private:
    std::uint32_t next();
    /// A number of 0..last, off uniform by at most last / 2^32.
    std::uint32_t up_to(std::uint32_t last);

    std::array<std::uint32_t, 2> key_;
    std::array<std::uint32_t, 4> counter_, block_{};
    unsigned used_ = 4;
};

/// The draws of an evaluation sample: those of numpy.random.RandomState(seed).choice, in NumPy's frozen legacy form.
class EvaluationDraws {
public:
    explicit EvaluationDraws(std::uint32_t seed) : words_(seed) {}

    /// `count` rows below `pool`, without replacement unless the pool is smaller.
    std::vector<std::uint32_t> rows(std::uint32_t pool, std::size_t count);

private:
    std::uint32_t up_to(std::uint32_t last);

    std::mt19937 words_;
};

}  // namespace nepa3d
