/// Three floats, laid out as one row of an (N, 3) array, and the arithmetic the kernels need.
#pragma once

#include <algorithm>
#include <cmath>
#include <span>

namespace nepa3d {

template <class T>
struct Vec3Of {
    T x, y, z;

    constexpr T operator[](int axis) const { return axis == 0 ? x : axis == 1 ? y : z; }
    constexpr T& operator[](int axis) { return axis == 0 ? x : axis == 1 ? y : z; }
};

using Vec3 = Vec3Of<float>;
using Vec3d = Vec3Of<double>;
using Points = std::span<const Vec3>;

template <class T>
constexpr Vec3Of<T> operator+(Vec3Of<T> a, Vec3Of<T> b) {
    return {a.x + b.x, a.y + b.y, a.z + b.z};
}
template <class T>
constexpr Vec3Of<T> operator-(Vec3Of<T> a, Vec3Of<T> b) {
    return {a.x - b.x, a.y - b.y, a.z - b.z};
}
template <class T>
constexpr Vec3Of<T> operator*(T s, Vec3Of<T> a) {
    return {s * a.x, s * a.y, s * a.z};
}
template <class T>
constexpr T dot(Vec3Of<T> a, Vec3Of<T> b) {
    return a.x * b.x + a.y * b.y + a.z * b.z;
}
template <class T>
constexpr Vec3Of<T> cross(Vec3Of<T> a, Vec3Of<T> b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
template <class T>
constexpr Vec3Of<T> min(Vec3Of<T> a, Vec3Of<T> b) {
    return {std::min(a.x, b.x), std::min(a.y, b.y), std::min(a.z, b.z)};
}
template <class T>
constexpr Vec3Of<T> max(Vec3Of<T> a, Vec3Of<T> b) {
    return {std::max(a.x, b.x), std::max(a.y, b.y), std::max(a.z, b.z)};
}

constexpr Vec3d to_double(Vec3 a) { return {a.x, a.y, a.z}; }
constexpr Vec3 to_float(Vec3d a) { return {static_cast<float>(a.x), static_cast<float>(a.y), static_cast<float>(a.z)}; }

}  // namespace nepa3d
