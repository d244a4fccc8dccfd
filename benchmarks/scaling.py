"""How the time of our own steps grows with the faces of a mesh and with the number of queries."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from benchmarks import machine
from benchmarks.inputs import Inputs, MeshFile, inputs_of
from benchmarks.run import RESULTS
from nepa3d import cli, ops
from nepa3d.corpora.solids import revolve, smooth
from nepa3d.execution.files import atomic_open, write_json
from nepa3d.shapes.mesh import Mesh, normalize
from nepa3d.shapes.query_pools import PoolSettings, build_pools

PROFILE = ((0.0, -1.0), (0.6, -0.5), (0.3, 0.2), (0.8, 0.7), (0.0, 1.0))  # radius and height of a vase
FACES = (100, 1_000, 10_000, 100_000, 1_000_000, 5_000_000)
QUERIES = (1_000, 10_000, 100_000, 1_000_000)
QUICK_FACES = (100, 1_000, 10_000)
QUICK_QUERIES = (1_000, 10_000)
USUAL_FACES = 100_000  # while the queries vary
MAX_RUNS = 5
ENOUGH = 1.0  # seconds after which a step is not run again

Step = Callable[[], object]


@dataclass(frozen=True)
class Config:
    """Time our steps on one procedural shape of 100 to 5 million faces, and for a thousand to a million queries.

    Example: python -m benchmarks scaling --quick
    """

    results: Path = RESULTS
    """Folder for scaling-<machine>.json and scaling-<machine>.png; quick runs end in -partial."""
    quick: bool = False
    """Small sizes only."""
    threads: int = 1
    """Threads of each step but the whole of build_pools, which takes one."""


@dataclass(frozen=True)
class Curve:
    """Least seconds of a step at each size, and the line a + b n log2 n through them."""

    step: str
    against: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    constant: float
    slope: float

    def fitted(self, size: np.ndarray) -> np.ndarray:
        """Seconds (n,) of the line at sizes (n,)."""
        return self.constant + self.slope * size * np.log2(size)


def vase(faces: int) -> Mesh:
    """A round vase of about ``faces`` triangles, in the unit sphere."""
    rows = round((faces / 4) ** 0.5) + 1
    solid = revolve(smooth(PROFILE, rows), round(faces / 2 / (rows - 2)))
    return Mesh(normalize(solid.vertices), solid.faces, {})


def steps(inputs: Inputs, settings: PoolSettings, threads: int) -> dict[str, Step]:
    """What is timed: each step builds its index and asks all its queries. R are 0.4 M, as in preprocessing."""
    mesh, queries = inputs.mesh, inputs.queries
    rays = inputs.origins, inputs.directions
    return {
        "ray casting": lambda: ops.cast_rays(mesh.vertices, mesh.faces, *rays, threads=threads),
        "closest point": lambda: ops.closest_point(mesh.vertices, mesh.faces, queries, threads=threads),
        "nearest distance": lambda: ops.nearest_distance(inputs.reference, queries, threads=threads),
        "build_pools": lambda: build_pools(mesh, settings, 0, inputs.file.name),
    }


def time_steps(faces: int, settings: PoolSettings, threads: int) -> tuple[int, dict[str, float]]:
    """The faces made, and the least seconds of each step."""
    mesh = vase(faces)
    inputs = inputs_of(MeshFile(f"vase/{faces}", Path(), len(mesh.faces)), mesh, settings)
    return len(mesh.faces), {name: least_seconds(step) for name, step in steps(inputs, settings, threads).items()}


def least_seconds(step: Step) -> float:
    """The least of up to ``MAX_RUNS`` runs, or of as many as fit ``ENOUGH`` seconds."""
    taken: list[float] = []
    while len(taken) < MAX_RUNS and sum(taken) < ENOUGH:
        begin = time.perf_counter()
        step()
        taken.append(time.perf_counter() - begin)
    return min(taken)


def fit(sizes: Sequence[int], seconds: Sequence[float]) -> tuple[float, float]:
    """a, b >= 0 of a + b n log2 n with the least relative error, as one sees it on logarithmic axes."""
    n, t = np.asarray(sizes, np.float64), np.asarray(seconds)
    growth = n * np.log2(n)
    both = np.linalg.lstsq(np.stack([1 / t, growth / t], 1), np.ones(len(t)), rcond=None)[0]
    if both.min() >= 0:
        return float(both[0]), float(both[1])
    constant, slope = (float((x / t).sum() / ((x / t) ** 2).sum()) for x in (np.ones_like(t), growth))
    return (0.0, slope) if both[0] < 0 else (constant, 0.0)


def measure(config: Config) -> list[Curve]:
    """Time the steps over the faces at the usual queries, then over the queries at the usual faces.

    Along the faces, the nearest distance is to as many surface samples.
    """
    usual = PoolSettings()
    along_faces: dict[int, dict[str, float]] = {}
    for faces in QUICK_FACES if config.quick else FACES:
        print(f"  {faces:,} faces", file=sys.stderr, flush=True)
        made, seconds = time_steps(faces, replace(usual, dist_ref_points=faces), config.threads)
        along_faces[made] = seconds
    along_queries: dict[int, dict[str, float]] = {}
    faces = QUICK_FACES[-1] if config.quick else USUAL_FACES
    for queries in QUICK_QUERIES if config.quick else QUERIES:
        print(f"  {queries:,} queries", file=sys.stderr, flush=True)
        settings = replace(usual, pt_pool=queries, ray_pool=queries * 2 // 5)
        along_queries[queries] = time_steps(faces, settings, config.threads)[1]
    return [
        *curves_of(along_faces, "faces (nearest distance: points)"),
        *curves_of(along_queries, f"queries ({faces:,} faces)"),
    ]


def curves_of(timed: Mapping[int, Mapping[str, float]], against: str) -> list[Curve]:
    """A fitted curve for each step from seconds by size and step."""
    sizes = tuple(timed)
    names = timed[sizes[0]]
    series = {name: tuple(timed[size][name] for size in sizes) for name in names}
    return [Curve(name, against, sizes, seconds, *fit(sizes, seconds)) for name, seconds in series.items()]


def picture(about: Mapping[str, Any], curves: Sequence[Curve], path: Path) -> None:
    """Draw measured times as dots and fitted lines, a panel for each kind of size, on logarithmic axes."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys(curve.against for curve in curves))
    figure = Figure(figsize=(6 * len(panels), 4.5), layout="constrained")
    for axes, against in zip(figure.subplots(1, len(panels), sharey=True, squeeze=False)[0], panels, strict=True):
        for index, curve in enumerate(curve for curve in curves if curve.against == against):
            along = np.geomspace(curve.sizes[0], curve.sizes[-1])
            axes.plot(along, curve.fitted(along), color=f"C{index}", linewidth=1)
            axes.plot(curve.sizes, curve.seconds, "o", color=f"C{index}", label=curve.step)
        axes.set(xscale="log", yscale="log", xlabel=against)
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    left = figure.axes[0]
    left.set_ylabel("seconds; lines: a + b n log n")
    left.legend(frameon=False)
    described = about["machine"]
    figure.suptitle(f"{described['cpu']}, commit {about['commit']}, {about['date'][:10]}", fontsize=9)
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=130)


def command(config: Config) -> None:
    """Time, print the table, write JSON and picture; see ``Config``."""
    curves = measure(config)
    about = machine.describe()
    lines = [
        (curve.step, curve.against, f"{size:,}", f"{seconds:.3g}", f"{fitted:.3g}")
        for curve in curves
        for size, seconds, fitted in zip(
            curve.sizes, curve.seconds, curve.fitted(np.array(curve.sizes, np.float64)), strict=True
        )
    ]
    headers = ("step", "against", "n", "seconds", "a + b n log n")
    print(tabulate(lines, headers, disable_numparse=True, colalign=("left", "left", "right", "right", "right")))
    partial = "-partial" if config.quick else ""
    path = config.results / f"scaling-{machine.slug()}{partial}.json"
    write_json(path, {**about, "threads": config.threads, "curves": [asdict(curve) for curve in curves]})
    picture(about, curves, path.with_suffix(".png"))
    print(f"wrote {path} and {path.with_suffix('.png')}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
