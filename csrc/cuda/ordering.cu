#include "launch.hpp"
#include "ordering.cuh"
#include "runtime.cuh"

namespace nepa3d::cuda {

void morton_order(Ordering batch, void* memory, std::size_t memory_bytes, Stream stream) {
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    launch_rows<code_morton>(batch, batch.rows.rows, stream, "morton_order: codes");
    sort_rows(batch.sort, 0, stream);
    launch_rows<number_row>(batch, batch.rows.rows, stream, "morton_order");
}

void ray_direction_order(Ordering batch, void* memory, std::size_t memory_bytes, Stream stream) {
    Scratch scratch(memory);
    batch.lay_out(scratch);
    require_bytes(memory_bytes, scratch.bytes());
    launch_rows<code_polar>(batch, batch.rows.rows, stream, "ray_direction_order: polar angles");
    RowSort by_polar_angle = batch.sort;
    by_polar_angle.bits = 32;
    sort_rows(by_polar_angle, 0, stream);
    launch_rows<code_azimuth>(batch, batch.rows.rows, stream, "ray_direction_order: azimuths");
    sort_rows(batch.sort, 0, stream);
    launch_rows<number_row>(batch, batch.rows.rows, stream, "ray_direction_order");
}

}  // namespace nepa3d::cuda
