#include "distance_transform.cuh"
#include "launch.hpp"
#include "runtime.cuh"

namespace nepa3d::cuda {

void distance_transform(const Transforms& batch, void* scratch, std::size_t scratch_bytes, Stream stream) {
    transform_by(batch, scratch, scratch_bytes, [&]<class Pass>(const Pass& pass) {
        launch_rows<run_pass<Pass>>(pass, batch.cells(), stream, "distance_transform");
    });
}

}  // namespace nepa3d::cuda
