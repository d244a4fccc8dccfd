"""A mesh as a depth camera would see it.

A camera sees the near side only; floor and wall are seen beside and behind the shape; depths are noisy; the whole is
turned about the vertical. So the clouds have what makes real scans hard (Uy et al.: Revisiting Point Cloud
Classification, ICCV 2019): holes, clutter, noise and no common heading.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from nepa3d import ops
from nepa3d.execution.checks import require_choice
from nepa3d.shapes.mesh import BadShapeError, Mesh, Reason
from nepa3d.shapes.query_pools import look_at_origin
from nepa3d.shapes.rotation import Up, turn, upright

DISTANCE = 2.5  # of the camera from the shape's centre; shapes lie in the unit sphere
ELEVATION = (-0.1, 0.9)  # of the camera above the horizon, radians
ROOM = 1.3  # floor and wall are seen this far from the shape's centre, if the room is fixed
RADIUS = (1.15, 1.5)  # the same, if it is random, from a point near the centre
OFFSET = 0.15  # of that point from the centre, at most, along each axis
GAP = 0.4  # of a random wall from the shape, at most
TURN = 0.7  # of a random wall from facing the camera, at most, radians
BACKGROUND = -1  # in the mask, as in the real data set

Float = NDArray[np.float32]
RoomKind = Literal["random", "fixed"]


@dataclass(frozen=True)
class ScanSettings:
    """What decides a scan, beside the mesh and the seed."""

    points: int = 2048
    """Points of a scan."""
    background: float = 0.25
    """Part of them that floor and wall give."""
    noise: float = 0.005
    """Standard deviation of a depth, where the shape's radius is 1."""
    up: Up = "y"
    """The meshes' vertical axis: x, y or z."""
    room: RoomKind = "random"
    """Where the wall stands: behind the shape at a random distance and heading, with as much of the room in sight as
    chance has it; or, as in former versions, one radius behind the shape's centre (fixed)."""

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points must be at least 1, got {self.points}")
        if not 0 <= self.background < 1:
            raise ValueError(f"background must lie in [0, 1), got {self.background}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must lie in [0, 1), got {self.noise}")
        require_choice("room", self.room, RoomKind)
        require_choice("up", self.up, Up)


@dataclass(frozen=True)
class Room:
    """Floor and wall, and the ball in which they are seen."""

    floor: float  # its height
    toward: NDArray[np.float64]  # horizontal unit vector (3,) from the wall into the room
    wall: float  # the wall is at p @ toward = wall
    centre: NDArray[np.float64]  # (3,)
    radius: float


def fixed_room(camera: Float, floor: float) -> Room:
    """A wall that faces the camera one radius behind the shape's centre. It gives centre, scale and camera away."""
    toward = camera * [1, 0, 1] / np.linalg.norm(camera * [1, 0, 1])
    return Room(floor, toward, -1.0, np.zeros(3), ROOM)


def random_room(vertices: Float, camera: Float, rng: np.random.Generator) -> Room:
    """A floor on which the shape (V, 3) stands, and a wall somewhere behind it, turned from the camera."""
    angle = np.arctan2(camera[2], camera[0]) + rng.uniform(-TURN, TURN)
    toward = np.array([np.cos(angle), 0.0, np.sin(angle)])
    radius, centre = rng.uniform(*RADIUS), rng.uniform(-OFFSET, OFFSET, 3)
    wall = float((vertices @ toward).min()) - rng.uniform(0, GAP)
    in_sight = (float(centre @ toward) - wall) / 0.9  # a part of every wall is seen
    return Room(float(vertices[:, 1].min()), toward, wall, centre, max(radius, in_sight))


def scan(
    mesh: Mesh, settings: ScanSettings, rng: np.random.Generator, name: str = "mesh"
) -> tuple[Float, NDArray[np.int32]]:
    """A cloud (N, 3), y up, and which of its points are the shape's (0) or the room's (-1), (N,)."""
    turned = upright(mesh.vertices, settings.up)
    bvh = ops.TriangleBvh(turned, mesh.faces)
    wanted_room = round(settings.background * settings.points)
    azimuth, elevation = rng.uniform(0, 2 * np.pi), rng.uniform(*ELEVATION)
    toward = np.array([np.cos(elevation) * np.cos(azimuth), np.sin(elevation), np.cos(elevation) * np.sin(azimuth)])
    camera = (DISTANCE * toward).astype(np.float32)
    floor = float(turned[:, 1].min())
    room = random_room(turned, camera, rng) if settings.room == "random" else fixed_room(camera, floor)
    shape, clutter = np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)
    for _ in range(64):  # a thin shape is hit by few rays
        directions = view_rays(camera, 8 * settings.points, rng, room.radius)
        depth = bvh.cast_rays(np.broadcast_to(camera, directions.shape), directions).t
        hit = np.isfinite(depth)
        shape = np.concatenate([shape, seen(camera, directions[hit], depth[hit], settings.noise, rng)])
        behind = room_depth(camera, directions[~hit], room)
        there = np.isfinite(behind)
        clutter = np.concatenate([clutter, seen(camera, directions[~hit][there], behind[there], settings.noise, rng)])
        if len(shape) >= settings.points - wanted_room and len(clutter) >= wanted_room:
            break
    else:
        raise BadShapeError(name, Reason.ZERO_EXTENT, "a camera sees too little of it")
    points = np.concatenate([shape[: settings.points - wanted_room], clutter[:wanted_room]])
    mask = np.zeros(settings.points, np.int32)
    mask[settings.points - wanted_room :] = BACKGROUND
    order = rng.permutation(settings.points)
    return turn(points, rng.uniform(0, 2 * np.pi))[order], mask[order]


def view_rays(camera: Float, count: int, rng: np.random.Generator, radius: float = ROOM) -> Float:
    """Unit directions (count, 3) from the camera, uniform over a square image that holds a ball of this radius."""
    frame = look_at_origin(camera[None])[0]
    half = radius / DISTANCE
    image = np.ones((count, 3), np.float32)
    image[:, :2] = rng.uniform(-half, half, (count, 2))
    directions = image @ frame
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def seen(camera: Float, directions: Float, depth: Float, noise: float, rng: np.random.Generator) -> Float:
    """Points (R, 3) at noisy depths (R,)."""
    noisy = depth + rng.normal(0, noise, len(depth)).astype(np.float32)
    return camera + noisy[:, None] * directions


def room_depth(camera: Float, directions: Float, room: Room) -> Float:
    """Depth (R,) at which rays (R, 3) meet floor or wall, inf where that is out of sight."""
    with np.errstate(divide="ignore"):
        to_floor = (room.floor - camera[1]) / directions[:, 1]
        to_wall = (room.wall - camera @ room.toward) / (directions @ room.toward)
    depth = np.minimum(np.where(to_floor > 0, to_floor, np.inf), np.where(to_wall > 0, to_wall, np.inf))
    finite = np.where(np.isfinite(depth), depth, 0)
    near = np.linalg.norm(camera + finite[:, None] * directions - room.centre, axis=1) <= room.radius
    return np.where(near & np.isfinite(depth), depth, np.inf).astype(np.float32)
