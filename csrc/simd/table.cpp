#include "kernels.hpp"

#define NEPA3D_QUOTE(name) #name
#define NEPA3D_STRING(name) NEPA3D_QUOTE(name)

namespace nepa3d::NEPA3D_ISA {

extern const Kernels table;
const Kernels table{NEPA3D_STRING(NEPA3D_ISA),
                    nearest,
                    first_hits,
                    closest_points,
                    lower_envelopes<std::int16_t>,
                    lower_envelopes<std::int32_t>,
                    lower_envelopes<double>,
                    walk_voxels,
                    morton_codes,
                    to_half};

}  // namespace nepa3d::NEPA3D_ISA
