// Any bytes as a cache file: a sample of every view, or FileFault.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <vector>

#include "shape_sample.hpp"

namespace {

void read_view(const std::string& path, nepa3d::Backend backend, bool qa) {
    const nepa3d::SampleSettings settings{.backend = backend,
                                          .n_point = 3,
                                          .n_ray = 2,
                                          .qa = qa,
                                          .eos = true,
                                          .drop_ray_prob = 0,
                                          .force_missing_ray = false,
                                          .voxel_grid = 4,
                                          .voxel_dilate = 1,
                                          .voxel_max_steps = 0};
    std::vector<float> features(settings.length() * nepa3d::feature_dim);
    std::vector<std::int64_t> types(settings.length());
    try {
        nepa3d::read_sample(path, settings, nepa3d::TrainingDraws(1, 2, 3), {features, types});
    } catch (const nepa3d::FileFault&) {
        return;
    }
    for (const float value : features) {
        if (!std::isfinite(value)) std::abort();
    }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const int file = memfd_create("input", MFD_CLOEXEC);
    if (file < 0 || write(file, data, size) != static_cast<ssize_t>(size)) std::abort();
    const std::string path = "/proc/self/fd/" + std::to_string(file);
    for (const auto backend :
         {nepa3d::Backend::mesh, nepa3d::Backend::pointcloud, nepa3d::Backend::udfgrid, nepa3d::Backend::voxel})
        read_view(path, backend, size % 2 == 0);
    close(file);
    return 0;
}
