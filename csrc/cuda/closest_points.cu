#include "closest_points.cuh"
#include "launch.hpp"
#include "runtime.cuh"

namespace nepa3d::cuda {

void closest_points(const ClosestPoints& batch, Stream stream) {
    launch_rows<closest_point>(batch, batch.query_rows.rows, stream, "closest_points");
}

}  // namespace nepa3d::cuda
