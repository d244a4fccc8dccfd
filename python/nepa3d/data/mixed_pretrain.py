"""``nepa3d.samples.mixes`` under the name that the track document uses."""

from nepa3d.samples.mixes import Component, Mix, draw_mixture, load_mix

__all__ = ["Component", "Mix", "draw_mixture", "load_mix"]
