/// The threads of a block, as the block's steps see them: on a GPU the block itself, on a CPU a loop.
///
/// A step is a function of a thread's number. `each` runs it for every thread, and no step begins before all threads have
/// finished the one before. What a thread keeps between steps is a Team::Local, indexed by its number.
#pragma once

#include <vector>

#include "portable.cuh"

namespace nepa3d::cuda {

#if defined(__CUDACC__)
/// The block that calls; `each` must be met by all its threads.
struct Block {
    template <class T>
    struct Local {
        T value;
        __device__ explicit Local(const Block&) {}
        __device__ T& operator[](int) { return value; }
    };

    __device__ int size() const { return static_cast<int>(blockDim.x); }
    template <class Step>
    __device__ void each(const Step& step) const {
        step(static_cast<int>(threadIdx.x));
        __syncthreads();
    }
};
#endif

/// Its twin on a CPU: one thread after the other.
struct LoopTeam {
    template <class T>
    struct Local : std::vector<T> {
        explicit Local(const LoopTeam& team) : std::vector<T>(static_cast<std::size_t>(team.threads)) {}
        T& operator[](int thread) { return std::vector<T>::operator[](static_cast<std::size_t>(thread)); }
    };

    int threads;
    int size() const { return threads; }
    template <class Step>
    void each(const Step& step) const {
        for (int thread = 0; thread < threads; ++thread) step(thread);
    }
};

}  // namespace nepa3d::cuda
