#include "draws.hpp"

#include <bit>
#include <numeric>
#include <utility>

namespace nepa3d {

namespace {

std::array<std::uint32_t, 4> philox(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t a = std::uint64_t{0xD2511F53} * counter[0], b = std::uint64_t{0xCD9E8D57} * counter[2];
        counter = {static_cast<std::uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(b),
                   static_cast<std::uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(a)};
        key[0] += 0x9E3779B9;
        key[1] += 0xBB67AE85;
    }
    return counter;
}

}  // namespace

TrainingDraws::TrainingDraws(std::uint64_t seed, std::uint32_t epoch, std::uint32_t index)
    : key_{static_cast<std::uint32_t>(seed), static_cast<std::uint32_t>(seed >> 32)}, counter_{0, index, epoch, 0} {}

std::uint32_t TrainingDraws::next() {
    if (used_ == 4) {
        block_ = philox(counter_, key_);
        ++counter_[0];
        used_ = 0;
    }
    return block_[used_++];
}

std::uint32_t TrainingDraws::up_to(std::uint32_t last) {
    return static_cast<std::uint32_t>((std::uint64_t{next()} * (std::uint64_t{last} + 1)) >> 32);
}

std::vector<std::uint32_t> TrainingDraws::rows(std::uint32_t pool, std::size_t count) {
    std::vector<std::uint32_t> rows(count);
    if (pool < count) {
        for (std::uint32_t& row : rows) row = up_to(pool - 1);
        return rows;
    }
    std::vector<bool> taken(pool);
    std::uint32_t last = pool - static_cast<std::uint32_t>(count);
    for (std::uint32_t& row : rows) {
        row = up_to(last);
        if (taken[row]) row = last;
        taken[row] = true;
        ++last;
    }
    return rows;
}

std::uint32_t EvaluationDraws::up_to(std::uint32_t last) {
    if (last == 0) return 0;
    const std::uint32_t mask = ~std::uint32_t{0} >> std::countl_zero(last);
    std::uint32_t value;
    do value = static_cast<std::uint32_t>(words_()) & mask;
    while (value > last);
    return value;
}

std::vector<std::uint32_t> EvaluationDraws::rows(std::uint32_t pool, std::size_t count) {
    std::vector<std::uint32_t> rows(pool < count ? count : pool);
    if (pool < count) {
        for (std::uint32_t& row : rows) row = up_to(pool - 1);
        return rows;
    }
    if (count == 0) return {};
    std::iota(rows.begin(), rows.end(), 0u);
    for (std::uint32_t i = pool - 1; i > 0; --i) std::swap(rows[i], rows[up_to(i)]);
    rows.resize(count);
    return rows;
}

}  // namespace nepa3d
