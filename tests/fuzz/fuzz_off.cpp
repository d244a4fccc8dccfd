#include "fuzz_mesh.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    return read_or_refuse(nepa3d::parse_off, data, size);
}
