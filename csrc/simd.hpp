/// Run-time choice of the vector instructions: a function marked NEPA3D_SIMD is compiled for plain x86-64, AVX2 and
/// AVX-512, and the loader takes what the processor has. Contraction is off, so every version gives the same bits.
#pragma once

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && \
    !defined(__SANITIZE_ADDRESS__)  // resolvers run before the sanitizer is set up
#define NEPA3D_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define NEPA3D_SIMD
#endif
