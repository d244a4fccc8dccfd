#include "view_row.hpp"

#include <algorithm>
#include <stdexcept>

namespace nepa3d {

void require_complete(const ViewRow& row) {
    if (row.name.empty()) throw std::invalid_argument("a view must have a name");
    const auto require = [&](bool met, const char* what) {
        if (!met) throw std::invalid_argument("view " + row.name + " must have " + what);
    };
    const bool stored = !row.distances.empty() || row.cloud_distances || !row.rays.empty();
    require(!(row.voxels && stored), "either voxels or stored and cloud distances and rays, not both");
    require(row.voxels || !row.distances.empty() || row.cloud_distances,
            "distances: keys of stored ones, cloud_distances, or voxels");
    require(std::all_of(row.distances.begin(), row.distances.end(),
                        [](const auto& stored) { return stored.key.starts_with("pt_dist_"); }),
            "distance keys that begin with pt_dist_");
    require(std::none_of(row.rays.begin(), row.rays.end(), [](const auto& suffix) { return suffix.empty(); }),
            "ray suffixes that are not empty");
}

}  // namespace nepa3d
