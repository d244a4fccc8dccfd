"""README's table of figures, made of the result files: nothing in it is typed by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.run import RESULTS
from nepa3d import cli
from nepa3d.execution.files import read_json, write_text

BEGIN, END = "<!-- figures: python -m benchmarks summary -->", "<!-- end of the figures -->"
KERNELS = "kernels"  # the kind of files whose names begin with none
OTHERS = ("attention-kernel", "attention-cpu", "layouts", "recipe", "scale", "scaling", "search", "gpu-geometry")
OURS, PLAIN, ONE_AT_A_TIME = "nepa3d", "torch.nn.TransformerEncoder", "one shape at a time"
TOPICS = {  # rows of the kernels, by the beginning of their names
    "nearest distance": "nearest distances",
    "ray casting": "ray casting",
    "closest point": "closest points on meshes",
    "surface sampling": "surface sampling",
    "distance transform": "distance transform, 64³",
    "voxel walk": "voxel walk with normals",
    "OBJ reading": "reading OBJ",
    "batch, ": "batches of training samples",
}
NAMES = {"open3d": "Open3D", "numpy": "NumPy", "scipy": "SciPy", "numba+scipy": "numba with SciPy"}


@dataclass(frozen=True)
class Config:
    """Print the table of figures that README shows, made of the newest result file of each benchmark.

    Example: python -m benchmarks summary --readme README.md
    """

    results: Path = RESULTS
    """Folder of the result files."""
    readme: Path | None = None
    """Page whose table is replaced; left out: none."""


class Line(NamedTuple):
    """A row of the table, without where it is from."""

    what: str
    said: str


@dataclass(frozen=True)
class Found:
    """A result file."""

    path: Path
    kind: str
    content: Mapping[str, Any]

    @property
    def source(self) -> str:
        """Commit and date, as a link from README to the file."""
        return f"[{self.content['commit']}, {self.content['date'][:10]}](benchmarks/results/{self.path.name})"

    @property
    def device(self) -> str:
        """The GPU, or the processor with the number of its cores."""
        machine = self.content["machine"]
        return self.content.get("device") or f"{machine['cpu'].replace('(R)', '')}, {machine['cores']} cores"

    @property
    def on_gpu(self) -> bool:
        return bool(self.content.get("device"))


def newest(results: Path) -> list[Found]:
    """The newest file of each kind, of a CPU and of a GPU; those of partial runs do not count."""
    chosen: dict[tuple[str, bool], Found] = {}
    for path in sorted(results.glob("*.json")):
        if path.stem.endswith("-partial") or path.stem.startswith(tuple(f"{other}-" for other in OTHERS)):
            continue
        kind = next((kind for kind in LINES if path.stem.startswith(f"{kind}-")), KERNELS)
        found = Found(path, kind, read_json(path))
        if kind == "attention" and not found.on_gpu:  # of attention_cpu, which has no peer
            continue
        known = chosen.get((kind, found.on_gpu))
        if known is None or known.content["date"] < found.content["date"]:
            chosen[kind, found.on_gpu] = found
    return list(chosen.values())


def table(results: Path) -> str:
    """The table in Markdown, the CPU's rows first."""
    rows = [("", "nepa3d is", "on", "commit, date, all figures"), ("---",) * 4]
    for found in sorted(newest(results), key=_place):
        rows += [(line.what, line.said, found.device, found.source) for line in LINES[found.kind](found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _place(found: Found) -> tuple[bool, int]:
    return found.on_gpu, [*LINES].index(found.kind)


def kernels(found: Found) -> Iterable[Line]:
    """A line a topic: the ratios to the fastest peer of each row, with one thread and with more."""
    for begin, what in TOPICS.items():
        rows = [row for row in found.content["rows"] if row["name"].startswith(begin) and row["ratio"]]
        if not rows:
            continue
        one = [row for row in rows if row["threads"] == 1]
        more = [row for row in rows if row["threads"] > 1]
        said = f"{_range(row['ratio'] for row in one)} times as fast as {_peers(one)}"
        if more:
            said += f" ({more[0]['threads']} threads: {_range(row['ratio'] for row in more)})"
        yield Line(what, said)


def shapes(found: Found) -> Iterable[Line]:
    """How long preprocessing the corpus takes."""
    runs = sorted(found.content["runs"], key=lambda run: run["workers"])
    most = runs[-1]
    said = f"done in {most['seconds']:.1f} s"
    if len(runs) > 1:
        said += f" ({runs[0]['workers']} worker: {runs[0]['seconds']:.1f} s)"
    yield Line(f"preprocessing {most['shapes']} meshes, {most['workers']} workers", said)


def training(found: Found) -> Iterable[Line]:
    """Ratios of the least times of a step to torch's encoder, over the corpora."""
    rows = found.content["rows"]
    plain = {row["corpus"]: min(row["seconds"]) for row in rows if row["way"] == PLAIN}
    ours = [row for row in rows if row["way"] == OURS]
    ratios = [plain[row["corpus"]] / min(row["seconds"]) for row in ours]
    said = f"{_range(ratios)} times as fast as `{PLAIN}`"
    rest = [plain[row["corpus"]] / min(row["seconds"]) for row in rows if row["way"].endswith("missing rays left out")]
    if rest:
        said += f"; {_range(rest)} with missing rays left out"
    yield Line(f"pretraining step, batch {found.content['flags']['batch']}", said)


def evaluation(found: Found) -> Iterable[Line]:
    """Ratios to the same model asked for one shape at a time, of retrieval and completion; a line a model."""
    rows = found.content["rows"]
    for model in dict.fromkeys(row["model"] for row in rows):
        ours = {row["probe"]: row["ratio"] for row in rows if row["way"] == OURS and row["model"] == model}
        said = " and ".join(f"{ratio:.1f}" for ratio in ours.values()) + " times as fast as " + ONE_AT_A_TIME
        yield Line(f"{' and '.join(ours)}, model {model}", said)


def attention(found: Found) -> Iterable[Line]:
    """Ratios of the least times on the device to each other way, over the lengths."""
    rows = found.content["rows"]
    least = {(row["way"], row["length"]): min(row["milliseconds"]) for row in rows}
    lengths = sorted({row["length"] for row in rows})

    def ratios(way: str) -> str:
        return _range(least[way, length] / least[OURS, length] for length in lengths)

    said = f"{ratios('SDPA with the mask')} times as fast as PyTorch's attention with that mask, "
    said += (
        f"{ratios('FlexAttention')} times as fast as FlexAttention; {ratios('SDPA, causal, no mask')} times PyTorch's "
    )
    said += "causal attention without the mask"
    yield Line(f"attention with the dual mask, {lengths[0]} to {lengths[-1]} tokens", said)


LINES: dict[str, Callable[[Found], Iterable[Line]]] = {  # by what names of files begin with, in the table's order
    KERNELS: kernels,
    "shapes": shapes,
    "training": training,
    "evaluation": evaluation,
    "attention": attention,
}


def _range(ratios: Iterable[float]) -> str:
    """The least and the greatest, with two significant digits."""
    values = sorted(ratios)
    ends = [f"{value:.2f}" if value < 2 else f"{value:.1f}" if value < 10 else f"{value:.0f}" for value in values]
    return ends[0] if ends[0] == ends[-1] else f"{ends[0]} to {ends[-1]}"


def _peers(rows: Sequence[Mapping[str, Any]]) -> str:
    """The fastest peers of rows, the most frequent first."""
    names = [NAMES.get(row["fastest_peer"], row["fastest_peer"]) for row in rows]
    known = sorted(set(names), key=lambda name: (-names.count(name), name))
    return " or ".join([", ".join(known[:-1]), known[-1]] if len(known) > 1 else known)


def replaced(page: str, text: str) -> str:
    """``page`` with the table between its marks replaced. ``ValueError`` where they are not there."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"readme: expected the lines {BEGIN} and {END}")
    return f"{before}{BEGIN}\n{text}\n{END}{after}"


def command(config: Config) -> None:
    """Print the table; with a page, put it there."""
    text = table(config.results)
    print(text)
    if config.readme is not None:
        write_text(config.readme, replaced(config.readme.read_text(encoding="utf-8"), text))


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)
