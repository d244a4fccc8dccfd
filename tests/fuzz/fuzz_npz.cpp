// Any bytes as a cache file: a sample of views of every kind, or FileFault.
#include <sys/mman.h>
#include <unistd.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "shape_sample.hpp"

namespace {

const std::vector<nepa3d::ViewRow> views = {
    {"mesh", {{"pt_dist_pool", false}}, false, {"pool"}, false},
    {"pointcloud", {{"pt_dist_pc_pool", true}, {"pt_dist_pool", false}}, true, {"pc_pool", "pool"}, false},
    {"udfgrid", {{"pt_dist_udf_pool", false}, {"pt_dist_pool", false}}, false, {}, false},
    {"voxel", {}, false, {}, true}};

void read_view(const std::string& path, const nepa3d::ViewRow& view, bool qa) {
    std::optional<nepa3d::VoxelGrid> grid;
    if (view.voxels) grid = {.side = 4, .dilate = 1, .max_steps = 0};
    const nepa3d::SampleSettings settings{.view = view,
                                          .n_point = 3,
                                          .n_ray = 2,
                                          .qa = qa,
                                          .eos = true,
                                          .drop_ray_prob = 0,
                                          .force_missing_ray = false,
                                          .voxel = grid};
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
    for (const nepa3d::ViewRow& view : views) read_view(path, view, size % 2 == 0);
    close(file);
    return 0;
}
