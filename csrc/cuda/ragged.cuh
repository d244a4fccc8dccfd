/// Batches of shapes of different sizes: the rows of all shapes joined, and where each shape's begin.
#pragma once

#include <cstdint>

#include "portable.cuh"

namespace nepa3d::cuda {

/// Rows offsets[s] to offsets[s + 1] - 1 belong to shape s; offsets[0] is 0, and the last is the number of rows.
struct Ragged {
    const std::int32_t* offsets;  ///< (shapes + 1,)
    std::int32_t shapes;
    std::int32_t rows;

    NEPA3D_HD std::int32_t begin(std::int32_t shape) const { return offsets[shape]; }
    NEPA3D_HD std::int32_t end(std::int32_t shape) const { return offsets[shape + 1]; }

    /// The shape that a row belongs to. Shapes may be empty.
    NEPA3D_HD std::int32_t shape_of(std::int32_t row) const {
        return last([&](std::int32_t shape) { return offsets[shape] <= row; });
    }

    // Blocks that each take up to `size` rows of one shape: shape s has those from first_block(s, size) on, the last of
    // which may be left without rows.

    NEPA3D_HD std::int32_t blocks(std::int32_t size) const { return rows / size + shapes; }
    NEPA3D_HD std::int32_t first_block(std::int32_t shape, std::int32_t size) const {
        return offsets[shape] / size + shape;
    }
    NEPA3D_HD std::int32_t shape_of_block(std::int32_t block, std::int32_t size) const {
        return last([&](std::int32_t shape) { return first_block(shape, size) <= block; });
    }

private:
    /// The last shape for which `holds`, which holds for the first and up to some shape, by bisection.
    template <class Holds>
    NEPA3D_HD std::int32_t last(const Holds& holds) const {
        std::int32_t low = 0, high = shapes - 1;
        while (low < high) {
            const std::int32_t middle = low + (high - low + 1) / 2;
            if (holds(middle)) low = middle;
            else high = middle - 1;
        }
        return low;
    }
};

}  // namespace nepa3d::cuda
