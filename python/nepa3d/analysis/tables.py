"""The UCPR and CPAC tables of the track document, from result files, with chance and copy baselines."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from nepa3d import cli
from nepa3d.execution.files import read_json, write_text
from nepa3d.probes.ranking import chance_metrics

UCPR_HEADS = ("Tag", "CKPT", "Query -> Gallery", "Split", "max_files", "R@1", "R@5", "R@10", "mAP", "Note")
CPAC_HEADS = ("Tag", "CKPT", "Context -> Target", "Split", "max_shapes", "MAE", "RMSE", "IoU@tau", "Note")

Row = list[str]


@dataclass(frozen=True)
class Config:
    """Collect UCPR and CPAC result files into the document's tables.

    Example: python -m nepa3d.analysis.tables --results results/*.json --out_md results/tables.md
    """

    results: tuple[str, ...]
    """Result files; what is neither UCPR nor CPAC is named and left out."""
    out_md: str = ""
    """Where to write the tables as Markdown; empty: nowhere."""


@dataclass(frozen=True)
class Table:
    """A titled table of text cells."""

    title: str
    heads: tuple[str, ...]
    rows: list[Row]
    first_figure: int  # column from which cells are numbers, up to the note

    def text(self, style: str) -> str:
        """The table in a ``tabulate`` style."""
        n_notes = 1
        n_figures = len(self.heads) - self.first_figure - n_notes
        align = ("left",) * self.first_figure + ("right",) * n_figures + ("left",) * n_notes
        return tabulate(self.rows, self.heads, tablefmt=style, colalign=align, disable_numparse=True)


def collect(paths: Sequence[str]) -> list[Table]:
    """Tables of the results at ``paths``; unreadable JSON, or no result at all, raises ``ValueError``."""
    retrievals: list[tuple[str, dict[str, Any]]] = []
    completions: list[tuple[str, dict[str, Any]]] = []
    for path in paths:
        result = read_result(path)
        kind = probe_of(result)
        if kind is None:
            print(f"left out {path}: neither a UCPR nor a CPAC result", file=sys.stderr)
            continue
        (retrievals if kind == "ucpr" else completions).append((Path(path).stem, result))
    if not retrievals and not completions:
        raise ValueError(f"results: expected UCPR or CPAC result files, found none among {len(paths)}")
    tables = []
    if retrievals:
        tables.append(Table("UCPR", UCPR_HEADS, _retrieval_rows(retrievals), first_figure=4))
    if completions:
        tables.append(_completion_table(completions))
    return tables


def read_result(path: str) -> dict[str, Any]:
    """One result file; ``ValueError`` naming it when it is not a JSON object."""
    return read_json(path)


def probe_of(result: dict[str, Any]) -> str | None:
    """``ucpr``, ``cpac`` or None, by the figures a result holds."""
    if {"r@1", "r@5", "r@10", "mAP", "n_files"} <= result.keys():
        return "ucpr"
    if {"mae", "rmse", "iou@tau", "tau"} <= result.keys():
        return "cpac"
    return None


def command(config: Config) -> None:
    """Print the tables; write them as Markdown where asked."""
    tables = collect(config.results)
    for table in tables:
        print(f"{table.title}\n{table.text('simple')}\n")
    if config.out_md:
        write_text(config.out_md, "\n".join(f"### {t.title}\n\n{t.text('pipe')}\n" for t in tables))
        print(f"wrote {config.out_md}")


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of ``python -m nepa3d.analysis.tables``."""
    return cli.run(Config, command, argv, output="out_md")


def _retrieval_rows(results: list[tuple[str, dict[str, Any]]]) -> list[Row]:
    rows = []
    for tag, r in results:
        figures = [_number(r[name]) for name in ("r@1", "r@5", "r@10", "mAP")]
        pair = f"`{r.get('query_backend', '-')} -> {r.get('gallery_backend', '-')}`"
        head = [f"`{tag}`", f"`{r.get('ckpt', '-')}`", pair, f"`{r.get('split', '-')}`", str(r["n_files"])]
        rows.append([*head, *figures, retrieval_notes(r)])
    for n in sorted({r["n_files"] for _, r in results}):
        chance = chance_metrics(n)
        figures = [_number(chance[name]) for name in ("r@1", "r@5", "r@10", "mAP")]
        rows.append(["chance", "-", "-", "-", str(n), *figures, f"random order of {n}"])
    return rows


def retrieval_notes(r: dict[str, Any]) -> str:
    """What one must know beside a UCPR result's figures."""
    notes = []
    if r.get("collapsed"):
        notes.append("COLLAPSED gallery")
    if "tie_rule" not in r or r["tie_rule"].startswith("only strictly better"):
        notes.append("strict ranks: ties count as wins")
    if r.get("shared_draws", r.get("eval_seed") == r.get("eval_seed_gallery")):
        notes.append("shared draws")
    notes += [name for name in ("ablate_point_xyz", "ablate_point_dist") if r.get(name)]
    if r.get("mc_k", 1) > 1:
        notes.append(f"mc_k {r['mc_k']}")
    notes += _unusual(r, {"pooling": "eos", "representation": "h", "precision": "float32"})
    return "; ".join(notes + _failures(r))


def _completion_table(results: list[tuple[str, dict[str, Any]]]) -> Table:
    taus = {r["tau"] for _, r in results}
    heads = tuple(f"IoU@{next(iter(taus)):g}" if h == "IoU@tau" and len(taus) == 1 else h for h in CPAC_HEADS)
    rows: list[Row] = []
    baselines: list[Row] = []
    for tag, r in results:
        target = "mesh" if str(r.get("target", "")).startswith("mesh") else "udf"
        pair = f"`{r.get('context_backend', '-')} -> {target}`"
        n_test = str(r.get("n_shapes_head_test", "-"))
        where = [f"`{r.get('eval_split', '-')}`", n_test]
        tau_note = [f"tau {r['tau']:g}"] if len(taus) > 1 else []
        notes = "; ".join([*tau_note, completion_notes(r)])
        rows.append([f"`{tag}`", f"`{r.get('ckpt', '-')}`", pair, *where, *_errors(r), notes])
        if r.get("nearest_copy"):
            note = "; ".join([*tau_note, "distance of the nearest context point", *_setting_notes(r)])
            baseline = ["nearest copy", "-", pair, *where, *_errors(r["nearest_copy"]), note]
            if baseline not in baselines:
                baselines.append(baseline)
    return Table("CPAC-UDF", heads, rows + baselines, first_figure=4)


def completion_notes(r: dict[str, Any]) -> str:
    """What one must know beside a CPAC result's figures."""
    split = r.get("head_train_split", "-")
    head = "transductive" if r.get("legacy_transductive") else f"head fitted on {split}"
    return "; ".join(
        [head, *_setting_notes(r), *_unusual(r, {"representation": "h", "precision": "float32"}), *_failures(r)]
    )


def _setting_notes(r: dict[str, Any]) -> list[str]:
    notes = [] if r.get("context", "own") == "own" else [f"context {r['context']}"]
    return notes + _unusual(r, {"query_source": "pool"})


def _unusual(r: dict[str, Any], usual: dict[str, str]) -> list[str]:
    return [f"{name} {r[name]}" for name, value in usual.items() if r.get(name, value) != value]


def _failures(r: dict[str, Any]) -> list[str]:
    return [f"{len(r['failed'])} shapes failed"] if r.get("failed") else []


def _errors(r: dict[str, Any]) -> Row:
    return [_number(r[name]) for name in ("mae", "rmse", "iou@tau")]


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.4f}"


if __name__ == "__main__":
    raise SystemExit(main())
