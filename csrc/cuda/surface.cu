#include "launch.hpp"
#include "runtime.cuh"
#include "surface.cuh"

namespace nepa3d::cuda {

namespace {

__global__ void __launch_bounds__(sum_threads) sum_areas_kernel(const SurfaceSampling batch) {
    __shared__ double tile[sum_threads];
    sum_areas(Block{}, batch, static_cast<std::int32_t>(blockIdx.x), tile);
}

}  // namespace

void sample_surface(const SurfaceSampling& batch, Stream stream) {
    launch_rows<measure_face>(batch, batch.face_rows.rows, stream, "sample_surface: areas");
    const auto shapes = static_cast<unsigned>(batch.face_rows.shapes);
    sum_areas_kernel<<<shapes, sum_threads, 0, static_cast<cudaStream_t>(stream)>>>(batch);
    check(cudaGetLastError(), "sample_surface: sums");
    launch_rows<draw_sample>(batch, batch.sample_rows.rows, stream, "sample_surface");
}

}  // namespace nepa3d::cuda
