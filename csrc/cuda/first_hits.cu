#include "first_hits.cuh"
#include "launch.hpp"
#include "runtime.cuh"

namespace nepa3d::cuda {

void first_hits(const FirstHits& batch, Stream stream) {
    launch_rows<first_hit>(batch, batch.ray_rows.rows, stream, "first_hits");
}

}  // namespace nepa3d::cuda
