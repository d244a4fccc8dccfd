"""``nepa3d.shapes.cloud`` under the name that the track document uses."""

from nepa3d.shapes.cloud import cloud_distances

__all__ = ["cloud_distances"]
