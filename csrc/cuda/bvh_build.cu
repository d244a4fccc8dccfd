#include <bit>
#include <cub/device/device_radix_sort.cuh>

#include "bvh_build.cuh"
#include "launch.hpp"
#include "runtime.cuh"
#include "scratch.hpp"

namespace nepa3d::cuda {

namespace {

__global__ void __launch_bounds__(bounds_threads) bounds_kernel(const BvhBuild build) {
    __shared__ Box partial[bounds_threads];
    bounds_block(Block{}, build, static_cast<std::int32_t>(blockIdx.x), partial);
}

/// The bits of shape << 32 | code.
int code_bits(std::int32_t shapes) { return 32 + std::bit_width(static_cast<std::uint32_t>(shapes - 1)); }

/// Sorts the faces, or says how many bytes that needs if `memory` is null.
std::size_t sort_faces(const BvhBuild& build, std::int32_t faces, std::int32_t shapes, void* memory, std::size_t bytes,
                       cudaStream_t stream) {
    check(cub::DeviceRadixSort::SortPairs(memory, bytes, build.codes, build.sorted, build.places, build.order, faces, 0,
                                          code_bits(shapes), stream),
          "cub::DeviceRadixSort::SortPairs");
    return bytes;
}

}  // namespace

std::size_t bvh_scratch_bytes(std::int32_t faces, std::int32_t shapes) {
    BvhBuild build{};
    Scratch scratch(nullptr);
    build.lay_out(scratch, faces, shapes);
    scratch.take<char>(sort_faces(build, faces, shapes, nullptr, 0, nullptr));
    return scratch.bytes();
}

void build_bvh(BvhBuild build, void* memory, std::size_t memory_bytes, Stream stream) {
    const std::int32_t faces = build.face_rows.rows, shapes = build.face_rows.shapes;
    const auto on = static_cast<cudaStream_t>(stream);
    const std::size_t sort_bytes = sort_faces(build, faces, shapes, nullptr, 0, on);
    Scratch scratch(memory);
    build.lay_out(scratch, faces, shapes);
    void* const sort_memory = scratch.take<char>(sort_bytes);
    require_bytes(memory_bytes, scratch.bytes());
    bounds_kernel<<<static_cast<unsigned>(shapes), bounds_threads, 0, on>>>(build);
    check(cudaGetLastError(), "build_bvh: bounds");
    if (faces == 0) return;
    launch_rows<code_face>(build, faces, stream, "build_bvh: codes");
    sort_faces(build, faces, shapes, sort_memory, sort_bytes, on);
    launch_rows<climb_from>(build, faces, stream, "build_bvh: tree");
}

}  // namespace nepa3d::cuda
