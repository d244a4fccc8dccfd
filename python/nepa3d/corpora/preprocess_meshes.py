"""One mesh file becomes one cache file: what the commands for mesh corpora share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Literal

from nepa3d.corpora.preprocessing import RunFlags, preprocess
from nepa3d.execution.files import write_json, write_text
from nepa3d.execution.npz import save_npz
from nepa3d.execution.processes import Report, Unwritten, Work
from nepa3d.shapes.mesh import MAX_FACES, load_mesh
from nepa3d.shapes.query_pools import PoolSettings, build_pools


@dataclass(frozen=True, kw_only=True)
class MeshFlags(PoolSettings, RunFlags):
    """The flags of a command that turns meshes into caches, beside where they lie."""

    pt_query_chunk: int = 2048
    """Has no effect: the kernels need no chunks. Accepted for compatibility with the original."""
    ray_query_chunk: int = 2048
    """Has no effect, see pt_query_chunk."""
    seed: int = 0
    """Seed of all samples; -1: a different one in every run."""
    max_faces: int = MAX_FACES
    """Meshes with more triangles are refused."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute. On a GPU (cuda) the shapes of a chunk (chunk_size) are one batch; the files are the same."""

    def pools(self) -> PoolSettings:
        """What decides the content of a cache file, beside the mesh and the seed."""
        return PoolSettings(**{f.name: getattr(self, f.name) for f in fields(PoolSettings)})

    def content(self) -> dict[str, Any]:
        """The settings that decide what is in a cache file."""
        return {name: getattr(self, name) for name in [*(f.name for f in fields(PoolSettings)), "seed"]}


@dataclass(frozen=True)
class ShapeJob:
    """One mesh to turn into one cache file."""

    key: str  # "class/id"
    mesh: Path
    out: Path
    settings: PoolSettings
    seed: int
    max_faces: int = MAX_FACES

    @property
    def reads(self) -> Path:
        """The mesh."""
        return self.mesh


def compute_shape(job: ShapeJob) -> Unwritten:
    """The cache file of one mesh, to be written, and what cleaning the mesh dropped."""
    mesh = load_mesh(job.mesh, max_faces=job.max_faces)
    pools = build_pools(mesh, job.settings, job.seed, job.key)
    return Unwritten(mesh.repaired, job.out, partial(save_npz, arrays=pools), mesh.doubt)


def shape_jobs(flags: MeshFlags, out_root: Path, split: str, meshes: Mapping[str, Path]) -> list[ShapeJob]:
    """The jobs of the meshes of one split, given by key, in the order of the keys."""
    settings = flags.pools()
    return [
        ShapeJob(key, meshes[key], out_root / split / f"{key}.npz", settings, flags.seed, flags.max_faces)
        for key in sorted(meshes)
    ]


def preprocess_meshes(
    flags: MeshFlags,
    out_root: Path,
    splits: Mapping[str, Sequence[ShapeJob]],
    work: Work[ShapeJob],
    settings: Mapping[str, Any],
    name: str,
) -> Report:
    """``preprocess`` the meshes of each split by ``work``; lists of them go to ``<out_root>/_splits/<split>.txt``.

    The shapes' keys are beside these, as only the command knows which parts of a path they are.
    """
    report = preprocess(flags, out_root, splits, work, settings, name)
    for split, of_split in splits.items():
        manifest = "".join(sorted(f"{job.mesh}\n" for job in of_split))
        write_text(out_root / "_splits" / f"{split}.txt", manifest)
        write_json(keys_path(out_root, split), {"keys": [job.key for job in of_split]})
    return report


def keys_path(out_root: Path, split: str) -> Path:
    """Where the keys of the shapes of a split are listed, also of those that could not be made."""
    return out_root / "_splits" / f"{split}_keys.json"


def require_one_split(out_root: Path, split: str, jobs: Sequence[ShapeJob]) -> None:
    """Refuse to put a shape into both splits."""
    other = "test" if split == "train" else "train"
    for job in jobs:
        there = out_root / other / f"{job.key}.npz"
        if there.exists():
            raise ValueError(
                f"{there}: this shape now belongs to {split}, as meshes were added or the split's settings changed: "
                "choose another out_root, or delete it"
            )
