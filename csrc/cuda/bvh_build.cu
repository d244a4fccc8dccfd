#include "bvh_build.cuh"
#include "launch.hpp"
#include "runtime.cuh"
#include "scratch.hpp"

namespace nepa3d::cuda {

namespace {

__global__ void __launch_bounds__(bounds_threads) begin_kernel(const BvhBuild build) {
    __shared__ Box partial[bounds_threads];
    begin_tree(Block{}, build, static_cast<std::int32_t>(blockIdx.x), partial);
}

}  // namespace

void build_bvh(BvhBuild build, void* memory, std::size_t memory_bytes, Stream stream) {
    const std::int32_t faces = build.face_rows.rows, shapes = build.face_rows.shapes;
    Scratch scratch(memory);
    build.lay_out(scratch, faces, shapes);
    require_bytes(memory_bytes, scratch.bytes());
    begin_kernel<<<static_cast<unsigned>(shapes), bounds_threads, 0, static_cast<cudaStream_t>(stream)>>>(build);
    check(cudaGetLastError(), "build_bvh: bounds");
    launch_rows<code_face>(build, faces, stream, "build_bvh: codes");
    sort_rows(build.sort, 0, stream);
    launch_rows<climb_from>(build, faces, stream, "build_bvh: tree");
}

}  // namespace nepa3d::cuda
