/// The threads of a block, as the block's steps see them: on a GPU the block itself, on a CPU a loop.
///
/// A step is a function of a thread's number. `each` runs it for every thread, and no step begins before all threads have
/// finished the one before. What a thread keeps between steps is a Team::Local, indexed by its number. A team of 32 can
/// also ask all its threads something.
#pragma once

#include <algorithm>
#include <cstdint>
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

/// The warp that calls; all its threads must meet every step.
struct Warp {
    template <class T>
    struct Local {
        T value;
        __device__ explicit Local(const Warp&) {}
        __device__ T& operator[](int) { return value; }
    };

    __device__ static int thread() { return static_cast<int>(threadIdx.x & 31); }
    __device__ int size() const { return 32; }
    template <class Step>
    __device__ void each(const Step& step) const {
        step(thread());
        __syncwarp();
    }
    /// Bit i: what `asked` says of thread i.
    template <class Asked>
    __device__ std::uint32_t those(const Asked& asked) const {
        return __ballot_sync(~0u, asked(thread()));
    }
    template <class Asked>
    __device__ std::uint32_t least(const Asked& asked) const {
        return __reduce_min_sync(~0u, asked(thread()));
    }
    template <class Asked>
    __device__ std::uint32_t greatest(const Asked& asked) const {
        return __reduce_max_sync(~0u, asked(thread()));
    }
};
#endif

/// The twin of both on a CPU: one thread after the other.
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
    template <class Asked>
    std::uint32_t those(const Asked& asked) const {
        std::uint32_t bits = 0;
        for (int thread = 0; thread < threads; ++thread) bits |= static_cast<std::uint32_t>(asked(thread)) << thread;
        return bits;
    }
    template <class Asked>
    std::uint32_t least(const Asked& asked) const {
        std::uint32_t found = asked(0);
        for (int thread = 1; thread < threads; ++thread) found = std::min(found, asked(thread));
        return found;
    }
    template <class Asked>
    std::uint32_t greatest(const Asked& asked) const {
        std::uint32_t found = asked(0);
        for (int thread = 1; thread < threads; ++thread) found = std::max(found, asked(thread));
        return found;
    }
};

}  // namespace nepa3d::cuda
