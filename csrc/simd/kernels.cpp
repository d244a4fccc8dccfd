#include "simd/kernels.hpp"

#include <atomic>
#include <span>
#include <string_view>

namespace nepa3d {

namespace baseline {
extern const Kernels table;
}
#ifdef NEPA3D_X86_64
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

namespace {

/// Those this processor runs, the widest last. The features are those that CMakeLists.txt compiles each for.
std::span<const Kernels* const> supported() {
    static const Kernels* tables[3] = {&baseline::table};
    static const std::size_t count = [] {
        std::size_t known = 1;
#ifdef NEPA3D_X86_64
        if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi")) return known;
        tables[known++] = &avx2::table;
        if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
            !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
            return known;
        tables[known++] = &avx512::table;
#endif
        return known;
    }();
    return {tables, count};
}

std::atomic<const Kernels*>& chosen() {
    static std::atomic<const Kernels*> table = supported().back();
    return table;
}

}  // namespace

const Kernels& kernels() { return *chosen().load(std::memory_order_relaxed); }

bool use_kernels(const char* name) {
    for (const Kernels* table : supported()) {
        if (std::string_view(table->name) == name) {
            chosen() = table;
            return true;
        }
    }
    return false;
}

}  // namespace nepa3d
