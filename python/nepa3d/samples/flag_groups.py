"""Groups of flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass

from nepa3d.shapes.answers import VoxelSettings


@dataclass(frozen=True, kw_only=True)
class VoxelFlags:
    """Settings of the voxel view."""

    voxel_grid: int = 64
    """Side of the grid of the voxel view, in cells."""
    voxel_dilate: int = 1
    """Rounds of dilation of that grid."""
    voxel_max_steps: int = 0
    """Largest number of cells that a ray visits; 0: three times voxel_grid."""

    def settings(self) -> VoxelSettings:
        """The settings that the view takes."""
        return VoxelSettings(self.voxel_grid, self.voxel_dilate, self.voxel_max_steps)
