#include "distance_transform.hpp"

#include <cmath>
#include <limits>

#include "parallel.hpp"

namespace nepa3d {

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

/// Scratch of one thread: the line being replaced, and the envelope's parabolas with where each takes over.
struct Envelope {
    explicit Envelope(std::size_t n) : value(n), apex(n), start(n) {}

    /// out[q * stride] = min over p of value[p] + weight * (q - p)^2
    void lower(double* out, std::size_t stride, double weight) {
        const std::size_t n = value.size();
        std::size_t count = 0;
        for (std::size_t q = 0; q < n; ++q) {
            if (value[q] == infinity) continue;
            double takes_over = -infinity;
            while (count > 0 && (takes_over = crossing(apex[count - 1], q, weight)) <= start[count - 1]) --count;
            if (count == 0) takes_over = -infinity;
            apex[count] = q;
            start[count++] = takes_over;
        }
        if (count == 0) return;
        for (std::size_t q = 0, k = 0; q < n; ++q) {
            while (k + 1 < count && start[k + 1] <= static_cast<double>(q)) ++k;
            const double offset = static_cast<double>(q) - static_cast<double>(apex[k]);
            out[q * stride] = value[apex[k]] + weight * offset * offset;
        }
    }

    std::vector<double> value;

private:
    /// Where the parabola with its apex at q falls below the one at p < q.
    double crossing(std::size_t p, std::size_t q, double weight) const {
        const double dp = static_cast<double>(p), dq = static_cast<double>(q);
        return ((value[q] - value[p]) / weight + dq * dq - dp * dp) / (2 * (dq - dp));
    }

    std::vector<std::size_t> apex;
    std::vector<double> start;
};

}  // namespace

std::vector<float> distance_transform(std::span<const std::uint8_t> occupancy, std::array<std::size_t, 3> shape,
                                      std::array<double, 3> spacing, int threads) {
    std::vector<double> squared(occupancy.size());
    for (std::size_t i = 0; i < squared.size(); ++i) squared[i] = occupancy[i] ? 0 : infinity;
    const std::array<std::size_t, 3> stride{shape[1] * shape[2], shape[2], 1};
    for (int axis = 2; axis >= 0; --axis) {
        // in units of the first spacing, so that equal spacings keep integers
        const double weight = (spacing[axis] / spacing[0]) * (spacing[axis] / spacing[0]);
        const int slow = axis == 0 ? 1 : 0, fast = axis == 2 ? 1 : 2;
        parallel_for(shape[slow], threads, 1, [&](std::size_t begin, std::size_t end) {
            Envelope envelope(shape[axis]);
            for (std::size_t i = begin; i < end; ++i) {
                for (std::size_t j = 0; j < shape[fast]; ++j) {
                    double* line = squared.data() + i * stride[slow] + j * stride[fast];
                    for (std::size_t q = 0; q < shape[axis]; ++q) envelope.value[q] = line[q * stride[axis]];
                    envelope.lower(line, stride[axis], weight);
                }
            }
        });
    }
    std::vector<float> distance(squared.size());
    for (std::size_t i = 0; i < squared.size(); ++i)
        distance[i] = static_cast<float>(std::sqrt(squared[i]) * spacing[0]);
    return distance;
}

}  // namespace nepa3d
