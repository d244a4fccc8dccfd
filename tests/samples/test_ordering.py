"""The order of queries in a sequence."""

import numpy as np

from nepa3d.samples.ordering import order_points, order_rays


def test_points_follow_the_morton_curve_with_x_lowest() -> None:
    xyz = np.array([[1, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, -1]], np.float32)
    assert order_points(xyz, np.arange(5)).tolist() == [4, 3, 2, 1, 0]


def test_only_the_drawn_points_are_ordered_and_repeats_stay() -> None:
    xyz = np.array([[1, 1, 1], [-1, -1, -1], [0, 0, 0]], np.float32)
    assert order_points(xyz, np.array([0, 1, 0])).tolist() == [1, 0, 0]


def test_rays_turn_by_azimuth_before_polar_angle() -> None:
    directions = np.array([[0, 1, 0], [0, -1, 0], [0.6, 0, 0.8], [0.8, 0, -0.6], [1, 0, 0]], np.float32)
    assert order_rays(directions, np.arange(5)).tolist() == [1, 2, 4, 3, 0]
