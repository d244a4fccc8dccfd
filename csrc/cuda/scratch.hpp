/// Arrays one after the other in memory that the caller gives.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

namespace nepa3d::cuda {

inline void require_bytes(std::size_t given, std::size_t needed) {
    if (given < needed)
        throw std::invalid_argument("scratch must have at least " + std::to_string(needed) + " bytes, got " +
                                    std::to_string(given));
}

/// With no memory it only counts the bytes. Each array begins at a multiple of 256 bytes.
class Scratch {
public:
    explicit Scratch(void* memory) : memory_(static_cast<char*>(memory)) {}

    template <class T>
    T* take(std::size_t count) {
        const std::size_t begin = bytes_;
        bytes_ += (count * sizeof(T) + 255) / 256 * 256;
        return memory_ ? reinterpret_cast<T*>(memory_ + begin) : nullptr;
    }
    std::size_t bytes() const { return bytes_; }

private:
    char* memory_;
    std::size_t bytes_ = 0;
};

}  // namespace nepa3d::cuda
