/// A view of a cached shape as data: a row of the table in python/nepa3d/backends/views.py, which both languages read.
#pragma once

#include <string>
#include <vector>

namespace nepa3d {

/// Point distances (P) stored under `key`.
struct StoredDistances {
    std::string key;
    bool recompute_invalid;  ///< computed from the cloud instead where a value of the pool is negative or not finite
};

/// Which answers a view gives: either stored ones, or those of voxels made anew from the cloud.
struct ViewRow {
    std::string name;
    std::vector<StoredDistances> distances;  ///< in order of preference: the first that the file has
    bool cloud_distances;  ///< computed from the cloud where the file has none of them; else that is a fault
    std::vector<std::string> rays;  ///< suffixes of ray_hit_, ray_t_ and ray_n_ in order of preference; empty: no rays
    bool voxels;

    bool has_rays() const { return voxels || !rays.empty(); }
};

/// Throws std::invalid_argument, naming the view, unless `row` says where distances come from, and in one way.
void require_complete(const ViewRow& row);

}  // namespace nepa3d
