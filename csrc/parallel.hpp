/// Data-parallel loops. Results must not depend on the split, so every answer is the same for any thread count.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

namespace nepa3d {

/// Calls body(begin, end) on disjoint ranges that cover [0, size), from `threads` threads (the caller's is one of
/// them), or from fewer, so that each has `worth_a_thread` of the size to do: what takes longer than starting it, some
/// 0.3 ms. Rethrows the first exception a body threw. `grain` is the length of a range.
template <class Body>
void parallel_for(std::size_t size, int threads, std::size_t grain, std::size_t worth_a_thread, const Body& body) {
    const std::size_t ranges = (size + grain - 1) / grain;
    const std::size_t workers =
        std::min({static_cast<std::size_t>(std::max(threads, 1)), ranges, size / worth_a_thread});
    if (workers <= 1) {
        if (size > 0) body(std::size_t{0}, size);
        return;
    }
    std::atomic<std::size_t> next{0};
    std::exception_ptr failure;
    std::mutex failure_guard;
    const auto work = [&] {
        for (std::size_t range; (range = next.fetch_add(1)) < ranges;) {
            try {
                body(range * grain, std::min(size, (range + 1) * grain));
            } catch (...) {
                const std::lock_guard lock(failure_guard);
                if (!failure) failure = std::current_exception();
                return;
            }
        }
    };
    {
        std::vector<std::jthread> pool;
        pool.reserve(workers - 1);
        for (std::size_t i = 1; i < workers; ++i) pool.emplace_back(work);
        work();
    }
    if (failure) std::rethrow_exception(failure);
}

}  // namespace nepa3d
