/// What the headers of this folder need to be compiled by nvcc for a GPU and by any compiler for its CPU twin.
#pragma once

#include <cstdint>
#include <utility>

#include "simd/scalar.hpp"

#if defined(__CUDACC__)
#define NEPA3D_HD __host__ __device__
#define NEPA3D_DEVICE __device__
#else
#define NEPA3D_HD
#define NEPA3D_DEVICE
#endif

namespace nepa3d::cuda {

/// Swaps `value` for what is at `at`, after everything this thread has written can be seen by all of them.
NEPA3D_HD inline std::int32_t exchange(std::int32_t* at, std::int32_t value) {
#if defined(__CUDA_ARCH__)
    __threadfence();
    const std::int32_t before = atomicExch(at, value);
    __threadfence();
    return before;
#else
    return std::exchange(*at, value);
#endif
}

/// Reads what another thread of this launch may have written.
NEPA3D_HD inline float fresh(const float* at) {
#if defined(__CUDA_ARCH__)
    return __ldcg(at);
#else
    return *at;
#endif
}

}  // namespace nepa3d::cuda
