/// The operations of lanes.hpp on one float or one double, so that one template serves sixteen lanes, the float64 that
/// decides where float32 cannot tell, and a thread of csrc/cuda.
///
/// Compiled under NEPA3D_ISA like lanes.hpp, see there. A comparison with NaN is false; min and max give b where a or b
/// is NaN.
#pragma once

#if defined(__CUDACC__)
#define NEPA3D_INLINE __host__ __device__ __forceinline__
#else
#define NEPA3D_INLINE [[gnu::always_inline]] inline
#endif

namespace nepa3d::NEPA3D_ISA {

NEPA3D_INLINE float select(bool m, float yes, float no) { return m ? yes : no; }
NEPA3D_INLINE float min(float a, float b) { return a < b ? a : b; }
NEPA3D_INLINE float max(float a, float b) { return a > b ? a : b; }
NEPA3D_INLINE double select(bool m, double yes, double no) { return m ? yes : no; }
NEPA3D_INLINE double min(double a, double b) { return a < b ? a : b; }
NEPA3D_INLINE double max(double a, double b) { return a > b ? a : b; }
NEPA3D_INLINE bool any(bool m) { return m; }

/// x in every lane.
template <class T>
NEPA3D_INLINE T constant(float x) {
    return static_cast<T>(x);
}

/// v[axis]. On a GPU an array that is indexed at run time would leave the registers.
NEPA3D_INLINE float pick(const float* v, int axis) {
#if defined(__CUDA_ARCH__)
    return axis == 0 ? v[0] : axis == 1 ? v[1] : v[2];
#else
    return v[axis];
#endif
}

/// Boxes are taken to be this much nearer than computed, so that rounding leaves out almost nothing in them.
constexpr float narrow = 1 - 4 * 0x1p-23f;

}  // namespace nepa3d::NEPA3D_ISA
