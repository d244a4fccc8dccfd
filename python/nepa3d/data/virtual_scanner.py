"""Meshes as a depth camera would see them, in ScanObjectNN's h5 layout: fine-tuning without the real scans.

Of each shape a camera sees the near side only; floor and wall are seen beside and behind it; depths are noisy; the
whole is turned about the vertical. So the clouds have what makes real scans hard (Uy et al.: Revisiting Point Cloud
Classification, ICCV 2019): holes, clutter, noise and no common heading.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from nepa3d import cli, ops
from nepa3d.corpora.preprocessing import RunFlags, exit_status, preprocess
from nepa3d.corpora.shapenet import find_meshes
from nepa3d.corpora.splits import mesh_test_split
from nepa3d.execution.files import atomic_path, write_json, write_npz
from nepa3d.execution.processes import Report, Unwritten
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.shapes.cache import ShapeCache
from nepa3d.shapes.mesh import BadShapeError, Mesh, Reason, load_mesh
from nepa3d.shapes.query_pools import look_at_origin, random_stream

FILES = {"train": "training_objectdataset.h5", "test": "test_objectdataset.h5"}  # as the real data set's
AXES = ("x", "y", "z")
DISTANCE = 2.5  # of the camera from the shape's centre; shapes lie in the unit sphere
ELEVATION = (-0.1, 0.9)  # of the camera above the horizon, radians
ROOM = 1.3  # floor and wall are seen this far from the shape's centre
BACKGROUND = -1  # in the mask, as in the real data set

Float = NDArray[np.float32]


@dataclass(frozen=True)
class ScanSettings:
    """What decides a scan, beside the mesh and the seed."""

    points: int = 2048
    """Points of a scan."""
    background: float = 0.25
    """Part of them that floor and wall give."""
    noise: float = 0.005
    """Standard deviation of a depth, where the shape's radius is 1."""
    up: str = "y"
    """The meshes' vertical axis: x, y or z."""

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"points must be at least 1, got {self.points}")
        if not 0 <= self.background < 1:
            raise ValueError(f"background must lie in [0, 1), got {self.background}")
        if not 0 <= self.noise < 1:
            raise ValueError(f"noise must lie in [0, 1), got {self.noise}")
        if self.up not in AXES:
            raise ValueError(f"up must be one of {', '.join(AXES)}, got {self.up!r}")


@dataclass(frozen=True, kw_only=True)
class Config(ScanSettings, RunFlags):
    """Scan the meshes of <mesh_root>/<class>/<id>/... into <out_root>/h5_files/main_split/{training,test}_*.h5.

    All scans of a mesh are in one split; the dataset "object" tells which mesh that is. classes.json has the classes'
    names by label. Meshes that fail are listed; the exit status is then 3.

    Example: python -m nepa3d.data.virtual_scanner --mesh_root data/ShapeNetCore.v2 --out_root data/VirtualScans
    """

    mesh_root: Path
    """Folder of the classes."""
    out_root: Path
    """Folder of the scans."""
    mesh_glob: str = "*/*/models/model_normalized.obj"
    """Where the meshes lie below mesh_root; the first two folders are class and mesh."""
    scans: int = 1
    """Scans of each mesh, from different sides."""
    test_ratio: float = 0.2
    """Part of each class that is the test split."""
    split_seed: int = 0
    """Which meshes those are."""
    seed: int = 0
    """Randomness of the scans; -1: different at every call."""

    def __post_init__(self) -> None:
        ScanSettings.__post_init__(self)
        if self.scans < 1:
            raise ValueError(f"scans must be at least 1, got {self.scans}")

    def content(self) -> dict[str, Any]:
        """The settings that decide what is in the files."""
        names = [f.name for f in fields(ScanSettings)]
        names += ["seed", "mesh_glob", "scans", "test_ratio", "split_seed"]
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class ScanJob:
    """One scan of one mesh."""

    key: str  # "class/id_scan"
    mesh: Path
    out: Path
    settings: ScanSettings
    seed: int


def compute_scan(job: ScanJob) -> Unwritten:
    """One scan, to be written."""
    points, mask = scan(load_mesh(job.mesh), job.settings, random_stream(job.seed, job.key, "scan"), f"{job.mesh}")
    return Unwritten("", partial(write_npz, job.out, {"points": points, "mask": mask}))


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
    shape, room = np.empty((0, 3), np.float32), np.empty((0, 3), np.float32)
    for _ in range(64):  # a thin shape is hit by few rays
        directions = view_rays(camera, 8 * settings.points, rng)
        depth = bvh.cast_rays(np.broadcast_to(camera, directions.shape), directions).t
        hit = np.isfinite(depth)
        shape = np.concatenate([shape, seen(camera, directions[hit], depth[hit], settings.noise, rng)])
        behind = room_depth(camera, directions[~hit], floor=float(turned[:, 1].min()))
        there = np.isfinite(behind)
        room = np.concatenate([room, seen(camera, directions[~hit][there], behind[there], settings.noise, rng)])
        if len(shape) >= settings.points - wanted_room and len(room) >= wanted_room:
            break
    else:
        raise BadShapeError(name, Reason.ZERO_EXTENT, "a camera sees too little of it")
    points = np.concatenate([shape[: settings.points - wanted_room], room[:wanted_room]])
    mask = np.zeros(settings.points, np.int32)
    mask[settings.points - wanted_room :] = BACKGROUND
    order = rng.permutation(settings.points)
    return turn(points, rng.uniform(0, 2 * np.pi))[order], mask[order]


def upright(vertices: Float, up: str) -> Float:
    """Vertices (V, 3) with the axis ``up`` as y, by a cyclic change of axes."""
    return np.ascontiguousarray(np.roll(vertices, 1 - AXES.index(up), axis=1))


def view_rays(camera: Float, count: int, rng: np.random.Generator) -> Float:
    """Unit directions (count, 3) from the camera, uniform over a square image that holds the room."""
    frame = look_at_origin(camera[None])[0]
    half = ROOM / DISTANCE
    image = np.ones((count, 3), np.float32)
    image[:, :2] = rng.uniform(-half, half, (count, 2))
    directions = image @ frame
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def seen(camera: Float, directions: Float, depth: Float, noise: float, rng: np.random.Generator) -> Float:
    """Points (R, 3) at noisy depths (R,)."""
    noisy = depth + rng.normal(0, noise, len(depth)).astype(np.float32)
    return camera + noisy[:, None] * directions


def room_depth(camera: Float, directions: Float, floor: float) -> Float:
    """Depth (R,) at which rays meet the floor or the wall behind the shape, inf where that is far away."""
    horizontal = camera * [1, 0, 1] / np.linalg.norm(camera * [1, 0, 1])
    with np.errstate(divide="ignore"):
        to_floor = (floor - camera[1]) / directions[:, 1]
        to_wall = (-1 - camera @ horizontal) / (directions @ horizontal)  # the plane one radius behind the centre
    depth = np.minimum(np.where(to_floor > 0, to_floor, np.inf), np.where(to_wall > 0, to_wall, np.inf))
    finite = np.where(np.isfinite(depth), depth, 0)
    near = np.linalg.norm(camera + finite[:, None] * directions, axis=1) <= ROOM
    return np.where(near & np.isfinite(depth), depth, np.inf).astype(np.float32)


def turn(points: Float, angle: float) -> Float:
    """Points (N, 3) turned about y."""
    c, s = np.cos(angle), np.sin(angle)
    return (points @ np.array([[c, 0, -s], [0, 1, 0], [s, 0, c]])).astype(np.float32)


def plan(config: Config) -> dict[str, list[ScanJob]]:
    """The jobs of each split, sorted by key."""
    meshes = find_meshes(config.mesh_root, config.mesh_glob)
    test = set(mesh_test_split(list(meshes), config.test_ratio, config.split_seed))
    settings = ScanSettings(**{f.name: getattr(config, f.name) for f in fields(ScanSettings)})
    splits: dict[str, list[ScanJob]] = {split: [] for split in FILES}
    for mesh_key in sorted(meshes):
        split = "test" if mesh_key in test else "train"
        for number in range(config.scans):
            key = f"{mesh_key}_{number:02d}"
            out = _scans(config) / split / f"{key}.npz"
            splits[split].append(ScanJob(key, meshes[mesh_key], out, settings, config.seed))
    return splits


def scan_meshes(config: Config) -> Report | None:
    """Scan every mesh and write the h5 files; ``None`` if they are there, of the same settings. See ``Config``."""
    about = config.out_root / "_meta" / "virtual_scanner.json"
    folder = config.out_root / "h5_files" / "main_split"
    if about.exists() and not _scans(config).exists() and not config.overwrite:
        print(f"{folder} is there already; --overwrite scans again")
        return None
    splits = plan(config)
    if config.shard().count > 1:
        raise ValueError("num_shards: the scans of one h5 file are made by one command, give 1")
    report = preprocess(config, _scans(config), splits, compute_scan, config.content(), "scan")
    classes = sorted({job.key.split("/")[0] for jobs in splits.values() for job in jobs})
    if len(report.failures()) == len(report.outcomes):
        raise ValueError(f"mesh_root: no mesh below {config.mesh_root} could be scanned")
    rows = []
    for split, jobs in splits.items():
        made = [job for job in jobs if job.out.exists()]
        write_h5(folder / FILES[split], made, classes)
        counts = Counter(job.key.split("/")[0] for job in made)
        rows += [(split, name, counts[name]) for name in classes]
    write_json(folder / "classes.json", classes)
    write_json(about, {"settings": config.content(), "classes": classes} | report.to_json())
    shutil.rmtree(_scans(config))
    print(tabulate(rows, headers=("split", "class", "scans")))
    print(f"wrote {folder}")
    return report


def write_h5(path: Path, jobs: Sequence[ScanJob], classes: Sequence[str]) -> None:
    """The scans of one split: data (S, N, 3), label (S,), mask (S, N) and the mesh (S,) each is of."""
    points = jobs[0].settings.points if jobs else 0
    with atomic_path(path) as temporary, h5py.File(temporary, "x") as file:
        data = file.create_dataset("data", (len(jobs), points, 3), np.float32)
        mask = file.create_dataset("mask", (len(jobs), points), np.int32)
        for i, job in enumerate(progress_bar(jobs, desc=path.name, unit="scan")):
            with ShapeCache(job.out) as cache:
                data[i], mask[i] = cache["points"], cache["mask"]
        file["label"] = np.array([classes.index(job.key.split("/")[0]) for job in jobs], np.int32)
        file["object"] = np.array([job.key.rpartition("_")[0].encode() for job in jobs], h5py.string_dtype())


def _scans(config: Config) -> Path:
    return config.out_root / "_scans"  # one file each, until all are there


def command(config: Config) -> int:
    """``scan_meshes`` with an exit status."""
    report = scan_meshes(config)
    return cli.EXIT_OK if report is None else exit_status(report)


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv, output="out_root")


if __name__ == "__main__":
    raise SystemExit(main())
