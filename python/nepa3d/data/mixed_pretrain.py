"""Several corpora as one: a YAML mix of caches and views, and which sample of which comes when."""

from __future__ import annotations

import difflib
import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from nepa3d.backends import VoxelSettings, require_backend
from nepa3d.data.dataset import list_shapes

EPOCH_STRIDE = 1009  # between the seeds of two epochs' draws


@dataclass(frozen=True)
class Component:
    """One corpus of a mix; ``None`` takes the command's value."""

    name: str
    cache_root: str
    split: str
    backend: str
    weight: float = 1.0
    drop_ray_prob: float | None = None
    force_missing_ray: bool | None = None
    add_eos: bool | None = None
    voxel_grid: int | None = None
    voxel_dilate: int | None = None
    voxel_max_steps: int | None = None

    def voxel(self, default: VoxelSettings) -> VoxelSettings:
        """The voxel settings, ``default`` where this component gives none."""
        given = (self.voxel_grid, self.voxel_dilate, self.voxel_max_steps)
        kept = (default.grid, default.dilate, default.max_steps)
        return VoxelSettings(*(k if g is None else g for g, k in zip(given, kept, strict=True)))


@dataclass(frozen=True)
class Mix:
    """What a mix file says."""

    components: tuple[Component, ...]
    mix_seed: int = 0
    mix_num_samples: int = 0  # samples an epoch; 0: as many as there are shapes
    replacement: bool = True


def load_mix(path: str | Path) -> Mix:
    """Read a mix file. A relative path is looked for from the working directory, then in the installed package.

    Raises ``ValueError`` naming the file and the key on anything unknown, missing or of the wrong kind.
    """
    source = resolve_config(path)
    try:
        content = yaml.safe_load(source.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{source}: not readable as YAML: {error}") from error
    if not isinstance(content, dict) or not isinstance(content.get("datasets"), list) or not content["datasets"]:
        raise ValueError(f"{source}: expected a mapping with a list `datasets`")
    known = {"datasets", "mix_seed", "mix_num_samples", "replacement"}
    _refuse_unknown(source, "", content, known)
    components = tuple(_component(source, i, entry) for i, entry in enumerate(content["datasets"]))
    settings = {key: value for key, value in content.items() if key != "datasets"}
    for key, kind in (("mix_seed", int), ("mix_num_samples", int), ("replacement", bool)):
        if key in settings and type(settings[key]) is not kind:
            raise ValueError(f"{source}: {key} must be {kind.__name__}, got {settings[key]!r}")
    return Mix(components, **settings)


def resolve_config(path: str | Path) -> Path:
    """``path`` if it exists, else the file of that name in the installed package (``nepa3d/configs/...``)."""
    path = Path(path)
    if path.is_file():
        return path
    installed = Path(str(importlib.resources.files("nepa3d"))).parent / path
    if not path.is_absolute() and installed.is_file():
        return installed
    raise ValueError(f"{path}: there is no such file, here or in the installed package")


def shapes_of(mix: Mix) -> list[list[str]]:
    """The cache files of each component."""
    return [list_shapes(component.cache_root, component.split) for component in mix.components]


def draw_mixture(
    sizes: list[int], weights: list[float], num_samples: int, seed: int, epoch: int, *, replacement: bool
) -> list[tuple[int, int]]:
    """The samples (component, shape) of one epoch, from RandomState(seed + 1009 * epoch).

    With replacement each sample picks a component by weight, then one of its shapes uniformly. Without, the samples
    are a uniform subset of all shapes of all components, and weights do not matter.
    """
    if num_samples < 1:
        raise ValueError(f"mix_num_samples must be at least 1, got {num_samples}")
    rng = np.random.RandomState(seed + EPOCH_STRIDE * epoch)
    if not replacement:
        total = sum(sizes)
        if num_samples > total:
            raise ValueError(f"mix_num_samples: {num_samples} of {total} shapes cannot be drawn without replacement")
        starts = np.cumsum([0, *sizes])
        chosen = rng.choice(total, size=num_samples, replace=False)
        component = np.searchsorted(starts, chosen, side="right") - 1
        return [(int(c), int(i - starts[c])) for c, i in zip(component, chosen, strict=True)]
    share = np.asarray(weights, np.float64)
    share = share / share.sum()
    drawn = []
    for _ in range(num_samples):
        component = int(rng.choice(len(sizes), p=share))
        drawn.append((component, int(rng.randint(0, sizes[component]))))
    return drawn


def _component(source: Path, index: int, entry: Any) -> Component:
    where = f"datasets[{index}]"
    if not isinstance(entry, dict):
        raise ValueError(f"{source}: {where} must be a mapping, got {entry!r}")
    _refuse_unknown(source, where, entry, {f.name for f in fields(Component)})
    for key in ("cache_root", "split", "backend"):
        if not isinstance(entry.get(key), str):
            raise ValueError(f"{source}: {where} must give {key} as text, got {entry.get(key)!r}")
    weight = entry.get("weight", 1.0)
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not weight > 0:
        raise ValueError(f"{source}: {where}: weight must be positive, got {weight!r}")
    require_backend(entry["backend"], f"{source}: {where}: backend")
    return Component(**{"name": entry["split"], **entry})


def _refuse_unknown(source: Path, where: str, entry: Mapping[str, Any], known: set[str]) -> None:
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f", did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ValueError(f"{source}: {where or 'the file'} has an unknown key {key!r}{hint}")
