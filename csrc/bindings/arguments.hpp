/// Checks of Python arguments: shape and finiteness, named in the error. Everything converts to the kernels' dtypes.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "mesh.hpp"
#include "vec3.hpp"

namespace nepa3d::bindings {

namespace py = pybind11;

template <class T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

inline std::string shape_of(const py::array& array) {
    std::string text = "(";
    for (py::ssize_t i = 0; i < array.ndim(); ++i)
        text += (i ? ", " : "") + std::to_string(array.shape(i)) + (array.ndim() == 1 ? "," : "");
    return text + ")";
}

/// Refuses complex numbers, texts and objects, which NumPy would cast.
inline void require_real(const py::array& array, const char* name) {
    if (std::string("fiub").find(array.dtype().kind()) == std::string::npos)
        throw py::value_error(std::string(name) + " must be real numbers, got " +
                              py::str(array.dtype()).cast<std::string>());
}

/// An (N, 3) array seen as N rows of type Row, which must be three Scalars.
template <class Row, class Scalar>
class Rows {
public:
    Rows(const py::array& array, const char* name, const char* letter) {
        static_assert(sizeof(Row) == 3 * sizeof(Scalar));
        if (array.ndim() != 2 || array.shape(1) != 3)
            throw py::value_error(std::string(name) + " must have shape (" + letter + ", 3), got " + shape_of(array));
        require_real(array, name);
        if (std::is_integral_v<Scalar> && array.dtype().kind() != 'i' && array.dtype().kind() != 'u')
            throw py::value_error(std::string(name) + " must be integers, got " +
                                  py::str(array.dtype()).cast<std::string>());
        array_ = Array<Scalar>(array);
    }

    std::span<const Row> span() const {
        return {reinterpret_cast<const Row*>(array_.data()), static_cast<std::size_t>(array_.shape(0))};
    }

private:
    Array<Scalar> array_;
};

using FaceRows = Rows<Face, std::int64_t>;

/// An (N,) array of integers.
class Integers {
public:
    Integers(const py::array& array, const char* name, const char* letter) {
        if (array.ndim() != 1 || (array.dtype().kind() != 'i' && array.dtype().kind() != 'u'))
            throw py::value_error(std::string(name) + " must be integers of shape (" + letter + ",), got " +
                                  py::str(array.dtype()).cast<std::string>() + " of shape " + shape_of(array));
        array_ = Array<std::int64_t>(array);
    }

    std::span<const std::int64_t> span() const { return {array_.data(), static_cast<std::size_t>(array_.size())}; }

private:
    Array<std::int64_t> array_;
};

/// (N, 3) float32 rows, all finite.
class PointRows : public Rows<Vec3, float> {
public:
    PointRows(const py::array& array, const char* name, const char* letter) : Rows(array, name, letter) {
        const auto points = span();
        for (std::size_t i = 0; i < points.size(); ++i) {
            if (!std::isfinite(points[i].x) || !std::isfinite(points[i].y) || !std::isfinite(points[i].z))
                throw py::value_error(std::string(name) + " must be finite, row " + std::to_string(i) + " is not");
        }
    }
};

/// A cubic grid (G, G, G).
template <class T>
class Cube {
public:
    Cube(const py::array& array, const char* name) {
        if (array.ndim() != 3 || array.shape(0) < 1 || array.shape(0) != array.shape(1) ||
            array.shape(0) != array.shape(2))
            throw py::value_error(std::string(name) + " must have shape (G, G, G), got " + shape_of(array));
        require_real(array, name);
        array_ = Array<T>(array);
    }

    std::span<const T> span() const { return {array_.data(), static_cast<std::size_t>(array_.size())}; }
    int side() const { return static_cast<int>(array_.shape(0)); }

private:
    Array<T> array_;
};

inline int at_least(int value, int least, const char* name) {
    if (value < least)
        throw py::value_error(std::string(name) + " must be at least " + std::to_string(least) + ", got " +
                              std::to_string(value));
    return value;
}

inline int between(int value, int least, int most, const char* name) {
    if (value < least || value > most)
        throw py::value_error(std::string(name) + " must be between " + std::to_string(least) + " and " +
                              std::to_string(most) + ", got " + std::to_string(value));
    return value;
}

inline void same_length(std::size_t a, const char* name_a, std::size_t b, const char* name_b) {
    if (a != b)
        throw py::value_error(std::string(name_a) + " and " + name_b + " must have the same length, got " +
                              std::to_string(a) + " and " + std::to_string(b));
}

/// Hands a vector over to NumPy without copying it.
template <class T>
py::array_t<T> to_numpy(std::vector<T>&& values, std::vector<py::ssize_t> shape) {
    auto* kept = new std::vector<T>(std::move(values));
    const py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<T>*>(p); });
    return py::array_t<T>(std::move(shape), kept->data(), owner);
}

/// Hands rows of three Scalars over to NumPy as an (N, 3) array, without copying them.
template <class Scalar, class Row>
py::array_t<Scalar> rows_to_numpy(std::vector<Row>&& rows) {
    static_assert(sizeof(Row) == 3 * sizeof(Scalar));
    auto* kept = new std::vector<Row>(std::move(rows));
    const py::capsule owner(kept, [](void* p) { delete static_cast<std::vector<Row>*>(p); });
    return py::array_t<Scalar>({static_cast<py::ssize_t>(kept->size()), py::ssize_t{3}},
                               reinterpret_cast<const Scalar*>(kept->data()), owner);
}

}  // namespace nepa3d::bindings
