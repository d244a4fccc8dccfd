#include "launch.hpp"
#include "runtime.cuh"

namespace nepa3d::cuda {

OnDevice::OnDevice(int device) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    check(cudaSetDevice(device), "cudaSetDevice");
}

OnDevice::~OnDevice() { cudaSetDevice(before_); }

std::vector<DeviceInfo> devices() {
    int count = 0;
    check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
    std::vector<DeviceInfo> found;
    for (int device = 0; device < count; ++device) {
        cudaDeviceProp properties;
        check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
        found.push_back({properties.name, properties.major, properties.minor, properties.totalGlobalMem});
    }
    return found;
}

}  // namespace nepa3d::cuda
