"""Several corpora as one: a YAML mix of caches and views, and which sample of which comes when."""

from __future__ import annotations

import bisect
import difflib
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from nepa3d.corpora.layouts import LAYOUTS
from nepa3d.execution.files import find_config
from nepa3d.execution.yaml_file import read_yaml
from nepa3d.samples.live import DECIDED
from nepa3d.shapes.query_pools import PoolSettings
from nepa3d.shapes.views import VoxelSettings, require_backend

EPOCH_STRIDE = 1009  # between the seeds of two epochs' draws
MOST_SEED = 2**31 - 1  # leaves room for the epochs: NumPy's RandomState takes 32 bits


@dataclass(frozen=True)
class Component:
    """One corpus of a mix; ``None`` takes the command's value."""

    name: str
    split: str
    backend: str
    source: Literal["caches", "meshes"] = "caches"
    """Cache files below ``cache_root``, or meshes below ``mesh_root`` that are asked while training."""
    cache_root: str = ""
    mesh_root: str = ""
    layout: str = "folder"
    """Of the meshes, with the share and the seed of the test split where it has none."""
    test_ratio: float = 0.1
    split_seed: int = 0
    pools: PoolSettings = field(default_factory=PoolSettings)
    """What decides the clouds, grids and queries of meshes."""
    weight: float = 1.0
    drop_ray_prob: float | None = None
    uniform_prob: float | None = None
    force_missing_ray: bool | None = None
    add_eos: bool | None = None
    voxel_grid: int | None = None
    voxel_dilate: int | None = None
    voxel_max_steps: int | None = None
    pair: str | None = None
    """Name of the component that has the second draw of each shape, of the same object; objectives of pairs only."""
    ask_pair: bool = False
    """Whether each of the two draws is asked the blind questions of the other, whose view answers them. Both views must
    be in the same frame."""

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
    source = find_config(path)
    if not source.is_file():
        raise ValueError(f"{source}: there is no such file, here or in the installed package")
    content = read_yaml(source)
    if not isinstance(content, dict):
        raise ValueError(f"{source}: expected a mapping with a list `datasets`, got {type(content).__name__}")
    _refuse_unknown(source, "", content, {"datasets", "mix_seed", "mix_num_samples", "replacement"})
    if not isinstance(content.get("datasets"), list) or not content["datasets"]:
        raise ValueError(f"{source}: datasets must be a list with at least one entry, got {content.get('datasets')!r}")
    components = tuple(_component(source, i, entry) for i, entry in enumerate(content["datasets"]))
    names = [component.name for component in components]
    for i, component in enumerate(components):
        if component.pair is not None and (component.pair == component.name or names.count(component.pair) != 1):
            raise ValueError(
                f"{source}: datasets[{i}]: pair must be the name of one other component, got {component.pair!r}"
            )
        if component.pair is not None and components[names.index(component.pair)].pair is not None:
            raise ValueError(f"{source}: datasets[{i}]: the pair {component.pair!r} must have no pair of its own")
        if component.ask_pair and component.pair is None:
            raise ValueError(
                f"{source}: datasets[{i}]: ask_pair must be false for a component without a pair, got true"
            )
    # losses are logged by name
    components = tuple(
        replace(component, name=f"{component.name}#{1 + names[:i].count(component.name)}")
        if names.count(component.name) > 1
        else component
        for i, component in enumerate(components)
    )
    if not sum(component.weight for component in components) > 0:
        raise ValueError(f"{source}: datasets: at least one weight must be positive")
    settings = {key: value for key, value in content.items() if key != "datasets"}
    for key, expected, accepts in (
        ("mix_seed", f"a count of at least 0 and at most {MOST_SEED}", _is_count(0, MOST_SEED)),
        ("mix_num_samples", "a count of at least 0", _is_count(0)),
        ("replacement", "true or false", _is_switch),
    ):
        if key in settings and not accepts(settings[key]):
            raise ValueError(f"{source}: {key} must be {expected}, got {settings[key]!r}")
    return Mix(components, **settings)


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
        chosen = rng.choice(total, size=num_samples, replace=False)
        starts = np.cumsum([0, *sizes])
        owners = np.searchsorted(starts, chosen, side="right") - 1
        return [(int(c), int(i - starts[c])) for c, i in zip(owners, chosen, strict=True)]
    bounds = np.cumsum(np.asarray(weights, np.float64) / sum(weights))
    bounds = (bounds / bounds[-1]).tolist()
    drawn = []
    for _ in range(num_samples):
        component = bisect.bisect_right(bounds, rng.random_sample())  # what choice(p=...) does, ten times faster
        drawn.append((component, int(rng.randint(0, sizes[component]))))
    return drawn


def _component(source: Path, index: int, entry: Any) -> Component:
    where = f"datasets[{index}]"
    if not isinstance(entry, dict):
        raise ValueError(f"{source}: {where} must be a mapping, got {entry!r}")
    _refuse_unknown(source, where, entry, {f.name for f in fields(Component)})
    kind = entry.get("source", "caches")
    of_kind = _OF_SOURCE.get(kind) if isinstance(kind, str) else None
    if of_kind is None:
        raise ValueError(f"{source}: {where}: source must be {' or '.join(_OF_SOURCE)}, got {kind!r}")
    for key in (of_kind[0], "split", "backend"):
        if key not in entry:
            raise ValueError(f"{source}: {where} must give {key}")
    for other, keys in _OF_SOURCE.items():
        for key in keys if other != kind else ():
            if key in entry:
                raise ValueError(f"{source}: {where}: {key} is of source {other}, and the source is {kind}")
    values = {"name": entry["split"], **entry}
    for key, value in values.items():
        expected, accepts = _VALUES[key]
        if not accepts(value):
            raise ValueError(f"{source}: {where}: {key} must be {expected}, got {value!r}")
    require_backend(values["backend"], f"{source}: {where}: backend")
    if "pools" in values:
        values["pools"] = _pools(f"{source}: {where}: pools", values["pools"])
    switches = {key: bool(values[key]) for key in ("force_missing_ray", "add_eos", "ask_pair") if key in values}
    return Component(**{**values, **switches})


def _pools(where: str, entry: Mapping[str, Any]) -> PoolSettings:
    """``PoolSettings`` of those settings that a sample does not decide."""
    known = {each.name for each in fields(PoolSettings)} - set(DECIDED)
    for key in entry:
        if key not in known:
            raise ValueError(f"{where}: unknown key {key!r}, known are {', '.join(sorted(known))}")
    try:
        return msgspec.convert(entry, PoolSettings)
    except (msgspec.ValidationError, ValueError) as error:
        raise ValueError(f"{where}: {error}") from error


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value != ""


def _is_switch(value: Any) -> bool:
    return isinstance(value, int) and value in (0, 1)


def _is_count(least: int, most: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_one_of(names: Collection[str]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and value in names


# of each source, the keys that it alone has, the one that it needs first
_OF_SOURCE = {"caches": ("cache_root",), "meshes": ("mesh_root", "layout", "test_ratio", "split_seed", "pools")}
# of each key of a component, what it must be and the test of that
_VALUES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("text", _is_text),
    "source": (" or ".join(_OF_SOURCE), _is_one_of(_OF_SOURCE)),
    "cache_root": ("text", _is_text),
    "mesh_root": ("text", _is_text),
    "layout": (f"one of {', '.join(LAYOUTS)}", _is_one_of(LAYOUTS)),
    "test_ratio": ("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "split_seed": ("a count of at least 0", _is_count(0)),
    "pools": ("a mapping", lambda value: isinstance(value, dict)),
    "split": ("text", _is_text),
    "backend": ("text", _is_text),
    "weight": ("a number of at least 0", lambda value: _is_number(value) and value >= 0),
    "drop_ray_prob": ("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "uniform_prob": ("a number in [0, 1]", lambda value: _is_number(value) and 0 <= value <= 1),
    "force_missing_ray": ("true or false", _is_switch),
    "add_eos": ("true or false", _is_switch),
    "voxel_grid": ("a count of at least 1", _is_count(1)),
    "voxel_dilate": ("a count of at least 0", _is_count(0)),
    "voxel_max_steps": ("a count of at least 0", _is_count(0)),
    "pair": ("the name of another component", _is_text),
    "ask_pair": ("true or false", _is_switch),
}


def _refuse_unknown(source: Path, where: str, entry: Mapping[str, Any], known: set[str]) -> None:
    for key in entry:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, 1)
            hint = f", did you mean {near[0]}?" if near else f"; known are {', '.join(sorted(known))}"
            raise ValueError(f"{source}: {where or 'the file'} has an unknown key {key!r}{hint}")
