"""One page of an experiment: what was run, how training went, what probes say and what speaks against them.

The page is one HTML file that needs no network. Its pictures lie beside it as PNG.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import tyro
import yaml

from nepa3d import cli
from nepa3d.corpora.shape_list import list_shapes
from nepa3d.execution import provenance
from nepa3d.execution.files import write_json, write_text
from nepa3d.execution.progress_bar import progress_bar
from nepa3d.models.attention_maps import attention_maps
from nepa3d.models.checkpoint import Checkpoint, load_checkpoint
from nepa3d.models.embedding import ProbeRequest, open_probe
from nepa3d.ops.attention import DualMask, dual_mask
from nepa3d.probes.drawings import Dots, EmbeddingMap, Gallery
from nepa3d.probes.drawings import Drawing as Drawn
from nepa3d.probes.kind import ProbeKind
from nepa3d.probes.ray_quality import ray_agreement
from nepa3d.probes.result import Json
from nepa3d.probes.table import PROBES
from nepa3d.probes.tables import Table
from nepa3d.report import fewshot, figures, findings, panels, picture
from nepa3d.report.experiment import Experiment, read_experiment
from nepa3d.report.scenes import Scene, read_scenes
from nepa3d.report.verdicts import verdicts
from nepa3d.samples.dataset import SampleSettings
from nepa3d.samples.loader import Request, evaluation_batch
from nepa3d.samples.schema import sequence_length
from nepa3d.shapes.packed import exists

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RAY_SHAPES = 8  # by which the rays are judged
MOST_RUNS = 4  # whose masks and attention are drawn
FINE_TUNED = "classification"  # the probe whose section has the fine-tuned models, too


@dataclass(frozen=True)
class Config:
    """Write a self-contained HTML page about an experiment, and its pictures as PNG.

    It is about everything below the folder: losses and diagnostics of pretraining, results of the probes, completed
    surfaces, fine-tuned classifiers, and the configurations saved beside them.

    Example: nepa3d report runs/nepa_qa --also results
    """

    run_dir: Annotated[Path, tyro.conf.Positional]
    """Folder of the experiment."""
    also: tuple[Path, ...] = ()
    """More folders that belong to it."""
    out_html: Path | None = None
    """The page; left out: report.html in the folder. Pictures go to a folder of the same name beside it."""
    cache_root: str = ""
    """Cache of the shapes to draw; left out: the one the results name."""
    split: str = "eval"
    """Split of those shapes."""
    up: Literal["y", "z"] = "y"
    """Axis of the meshes that points up."""
    title: str = ""
    """Heading; left out: the folder's name."""

    @property
    def page(self) -> Path:
        """Where the page is written."""
        return self.out_html or self.run_dir / "report.html"


@dataclass(frozen=True)
class Drawing:
    """A picture to be made."""

    name: str
    draw: Callable[[], Figure]
    caption: str


@dataclass
class Section:
    """A part of the page."""

    id: str
    title: str
    said: str
    drawings: list[Drawing] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    missing: str = ""
    pictures: list[Json] = field(default_factory=list)  # the drawings as they are on the page


def report(config: Config) -> Path:
    """Make the page; returns its path. ``ValueError`` if there is nothing to report or a file is damaged."""
    jinja2, matplotlib = _import("jinja2"), _import("matplotlib")
    experiment = read_experiment((config.run_dir, *config.also))
    scenes = read_scenes(experiment.results.get("surfaces", []), config.up)
    folder = config.page.with_suffix("")
    sections = [section for section in _sections(config, experiment, folder) if section is not None]
    with matplotlib.rc_context(panels.STYLE):
        drawings = [(section, drawing) for section in sections for drawing in section.drawings]
        for section, drawing in progress_bar(drawings, desc="pictures", unit="picture"):
            section.pictures.append(_drawn(drawing, folder))
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string(resources.files("nepa3d.report").joinpath("page.html").read_text("utf-8"))
    page = template.render(
        title=config.title or config.run_dir.resolve().name,
        made=provenance.describe(),
        verdicts=verdicts(experiment),
        doubts=findings.doubts(experiment),
        sections=sections,
        configurations=_configurations(experiment),
        scenes=_script(scenes),
        plotly=_import("plotly.offline").get_plotlyjs() if scenes else "",
    )
    write_text(config.page, page)
    return config.page


def _drawn(drawing: Drawing, folder: Path) -> Json:
    figure = drawing.draw()
    seen = figures.lay_out(figure)
    figures.write_png(figure, folder / f"{drawing.name}.png", seen)
    svg = figures.as_svg(figure, drawing.name, drawing.caption, seen)
    return {"svg": svg, "caption": drawing.caption, "width": figures.width_of(svg)}


def _sections(config: Config, experiment: Experiment, folder: Path) -> Iterable[Section | None]:
    shapes, fault = _shapes(config, experiment)
    yield _data(config, shapes, fault)
    yield _pretraining(experiment)
    for name, kind in PROBES.items():
        yield _probe(config, experiment, name, kind)
    yield _attention(experiment, shapes)
    yield _rays(shapes, folder)


def _shapes(config: Config, experiment: Experiment) -> tuple[list[str], str]:
    """The cached shapes that can be drawn, or why there are none."""
    named = [r.settings.get("cache_root") for probe in PROBES for _, r in experiment.of(probe)]
    roots = [config.cache_root] if config.cache_root else list(filter(None, named))
    if not roots:
        return [], "No result names a cache of shapes: --cache_root does."
    if not Path(roots[0], config.split).is_dir():
        return [], f"There is no {config.split} in {roots[0]}: start it where the probes ran, or name the cache."
    return list_shapes(roots[0], config.split), ""


def _data(config: Config, shapes: list[str], fault: str) -> Section:
    said = "What models are asked about: samples of the surface, distances at points, hits of rays, a distance grid."
    section = Section("data", "Shapes and queries", said, missing=fault)
    if shapes:
        split = Path(shapes[0]).parent.parent
        drawn = picture.Config(cache_root=f"{split.parent}", split=split.name, out_png="", up=config.up, title="")
        section.drawings = [Drawing("shapes", partial(picture.draw, drawn), "Three shapes, evenly chosen by class.")]
    return section


def _pretraining(experiment: Experiment) -> Section | None:
    runs = experiment.pretrainings
    if not runs:
        return None
    names = _unique_names(runs)
    colors = figures.colors_of(list(names.values()))
    curves = {names[run]: picture.read_losses(f"{run}") for run in runs}
    section = Section(
        "pretraining",
        "Pretraining",
        "A falling loss alone says little; the second picture says whether it means anything.",
    )
    section.drawings = [
        Drawing("losses", partial(figures.losses, curves, colors), "Training loss; strong: a running mean.")
    ]
    measured = {names[run]: found for run in runs if (found := findings.read_diagnostics(run))}
    if measured:
        caption = "Diagnostics of next-embedding prediction. A gap near 0 is copying, a spread near 0 is collapse."
        section.drawings.append(Drawing("diagnostics", partial(figures.diagnostics, measured, colors), caption))
    return section


def _probe(config: Config, experiment: Experiment, name: str, kind: ProbeKind) -> Section | None:
    """What a probe has to show of its results."""
    found = experiment.of(name)
    tuned = name == FINE_TUNED and bool(experiment.finetunings)
    if kind.section is None or not (found or tuned):
        return None
    section = Section(kind.section.id, kind.section.title, kind.section.said)
    if tuned:
        _add_fine_tuning(section, experiment)
    if found and kind.report_table is not None:
        section.tables.append(kind.report_table(found))
    colors = figures.colors_of(findings.models(found))
    for drawing in kind.drawings(found) if found else ():
        if not isinstance(drawing, Dots) and not all(exists(path) for path in drawing.paths):
            section.missing = f"The shapes of {drawing.model}'s results are not here: start it where the probes ran."
            continue
        section.drawings.append(Drawing(drawing.name, partial(_draw, drawing, colors, config.up), drawing.caption))
    return section


def _draw(drawing: Drawn, colors: dict[str, str], up: str) -> Figure:
    """The picture of what a probe described."""
    match drawing:
        case Dots():
            return figures.dots(drawing.rows, drawing.axis, colors)
        case EmbeddingMap():
            return figures.embedding_map(drawing.paths, drawing.plane, drawing.model)
        case Gallery():
            return figures.gallery(drawing.paths, drawing.top, drawing.ranks, drawing.views, up)


def _add_fine_tuning(section: Section, experiment: Experiment) -> None:
    """The table and the picture of fine-tuned classifiers."""
    section.tables.append(findings.finetuning_table(experiment))
    of = [result for _, result in experiment.finetuned]
    chance, majority = (_only(result.get(name) for result in of) for name in ("chance", "test_majority"))
    rows = fewshot.rows_of(experiment.finetunings)
    caption = "Test accuracy by training shapes a class, mean and deviation over seeds."
    section.drawings = [Drawing("fewshot", partial(figures.fewshot, rows, chance, majority), caption)]


def _attention(experiment: Experiment, shapes: list[str]) -> Section | None:
    checkpoints = _newest_checkpoints(experiment.pretrainings)
    if not checkpoints:
        return None
    section = Section(
        "attention", "Masks and attention", "What one training step hid, and where the trained models look."
    )
    masked = {name: (mask, c.args) for name, c in checkpoints.items() if (mask := _mask_of(c)).drops}
    if masked:
        caption = "Edges of one training step: blue kept, orange dropped, clear: later tokens."
        section.drawings.append(Drawing("masks", partial(_draw_masks, masked), caption))
    if shapes:
        caption = f"Attention over {Path(shapes[0]).stem}, mean over heads."
        section.drawings.append(Drawing("attention", partial(_draw_attention, checkpoints, shapes[0]), caption))
    return section


def _newest_checkpoints(runs: Sequence[Path]) -> dict[str, Checkpoint]:
    names = _unique_names(runs)
    last = {names[run]: run / "last.pt" for run in runs if (run / "last.pt").is_file()}
    return {name: load_checkpoint(path) for name, path in list(last.items())[:MOST_RUNS]}


def _mask_of(checkpoint: Checkpoint) -> DualMask:
    args = checkpoint.args
    near, far = args.get("dual_mask_near", 0.0), args.get("dual_mask_far", 0.0)
    return DualMask(near, far, args.get("dual_mask_window", 32), args.get("seed", 0))


def _draw_masks(masked: dict[str, tuple[DualMask, Json]]) -> Figure:
    edges, said = {}, {}
    for name, (mask, args) in masked.items():
        eos, qa = bool(args.get("add_eos", 1)), bool(args.get("qa_tokens", 0))
        length = sequence_length(args["n_point"], args["n_ray"], qa=qa, eos=eos)
        edges[name] = dual_mask(min(length, figures.SHOWN_TOKENS), mask).numpy()
        said[name] = f"drops {mask.near:.0%} within {mask.window} tokens, {mask.far:.0%} beyond"
    return figures.masks(edges, said)


def _draw_attention(checkpoints: dict[str, Checkpoint], shape: str) -> Figure:
    maps = {}
    for name, checkpoint in checkpoints.items():
        probe = open_probe(ProbeRequest(checkpoint.path, device="cpu"))
        settings = SampleSettings(probe.n_point, probe.n_ray, qa=probe.qa, eos=probe.eos)
        features, types = evaluation_batch([Request(shape, "mesh", settings)], 0)
        maps[name] = attention_maps(probe.model, features[0], types[0])
    return figures.attention(maps)


def _rays(shapes: list[str], folder: Path) -> Section | None:
    if not shapes:
        return None
    chosen = [shapes[i] for i in np.unique(np.linspace(0, len(shapes) - 1, RAY_SHAPES).round().astype(int))]
    rows = ray_agreement(chosen)
    write_json(folder / "rays.json", {"shapes": chosen, "grids": [asdict(row) for row in rows]})
    said = "Rays walked through voxels of the point samples (DDA), beside the same rays cast at the mesh: "
    said += f"{rows[0].rays} rays of {len(chosen)} shapes."
    caption = "Agreement on hits, and the distance to them, by the voxel grid's side."
    drawing = Drawing("rays", partial(figures.ray_quality, rows), caption)
    return Section("rays", "Rays through voxels", said, [drawing])


def _unique_names(runs: Sequence[Path]) -> dict[Path, str]:
    """The folders' names, with more of the path where two are the same."""
    names = [run.name for run in runs]
    return {run: run.name if names.count(run.name) == 1 else f"{run}" for run in runs}


def _only(values: Iterable[float | None]) -> float | None:
    """The value all have, or None."""
    known = set(values)
    return known.pop() if len(known) == 1 else None


def _configurations(experiment: Experiment) -> list[Json]:
    """What was run, in order of time."""
    found = []
    for path, content in experiment.configurations:
        run = content.get("run") or {}
        flags = yaml.safe_dump(content["flags"], sort_keys=False, allow_unicode=True)
        found.append({"path": f"{path}", "command": content.get("command", "?"), "run": run, "flags": flags})
    return sorted(found, key=lambda one: str(one["run"].get("date", "")))


def _script(scenes: list[Scene]) -> str:
    """The scenes as JSON that may stand within a script element."""
    return json.dumps([scene.plain() for scene in scenes], separators=(",", ":")).replace("</", "<\\/")


def _import(name: str) -> Any:
    """A module of the report's extra; ``ValueError`` that says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ValueError(f"report: {name} is not installed: pip install 'nepa3d[report]'") from error


def command(config: Config) -> None:
    """Write the page and say where."""
    page = report(config)
    print(f"wrote {page} ({page.stat().st_size / 1e6:.1f} MB) and pictures in {page.with_suffix('')}")


def main(argv: Sequence[str] | None = None) -> int:
    return cli.run(Config, command, argv)


if __name__ == "__main__":
    raise SystemExit(main())
