"""Results as a table, as JSON and as a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks.harness import OURS, Result
from nepa3d.execution.files import atomic_open

FASTER, SLOWER = "#3b6fb6", "#d1783c"


def table(results: Sequence[Result]) -> str:
    """One line a row; times are least ones in milliseconds, peers from fast to slow."""
    lines = [_line(result) for result in results]
    headers = ("row", "size", "threads", "ours ms", "median", "spread", "ratio", "peers, ms (spread)", "answers")
    text: str = tabulate(lines, headers, disable_numparse=True, colalign=("left", "left", *["right"] * 5))
    return text


def _line(result: Result) -> tuple[str, ...]:
    size = ", ".join(f"{count:,} {what}" for what, count in result.size.items())
    begin = (result.name, size, f"{result.threads}")
    peers_by_note: dict[str, list[str]] = {}
    for peer, note in result.notes.items():
        peers_by_note.setdefault(note, []).append(peer)
    notes = "; ".join(f"{', '.join(peers)}: {note}" for note, peers in peers_by_note.items())
    if result.differs:
        return (*begin, "", "", "", "", "ANSWERS DIFFER", notes)
    ours = result.times[OURS]
    peers = sorted((times.minimum, name, times.spread) for name, times in result.times.items() if name != OURS)
    return (
        *begin,
        milliseconds(ours.minimum),
        milliseconds(ours.median),
        f"{ours.spread:.0%}",
        "-" if result.ratio is None else f"{result.ratio:.2f}",
        ", ".join(f"{name} {milliseconds(least)} ({spread:.0%})" for least, name, spread in peers),
        notes or "agree" if peers else "no peer",
    )


def milliseconds(seconds: float) -> str:
    """Three significant digits."""
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def absent_peers(results: Sequence[Result]) -> list[str]:
    """One line for each peer that was left out."""
    reasons = {peer: reason for result in results for peer, reason in result.absent.items()}
    return [f"peer {peer} is left out: {reason}" for peer, reason in sorted(reasons.items())]


def as_json(about: dict[str, Any], results: Sequence[Result]) -> dict[str, Any]:
    """What is kept of a run; times in seconds."""
    rows = [
        {
            "name": result.name,
            "threads": result.threads,
            "size": dict(result.size),
            "differs": result.differs,
            "fastest_peer": result.fastest_peer,
            "ratio": result.ratio,
            "ratio_of_medians": result.ratio_of_medians,
            "times": {name: asdict(times) for name, times in result.times.items()},
            "notes": dict(result.notes),
            "absent": dict(result.absent),
        }
        for result in results
    ]
    return {**about, "rows": rows}


def picture(about: dict[str, Any], results: Sequence[Result], path: Path) -> None:
    """Draw the ratios to the fastest peer as bars, a panel for each number of threads."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullLocator

    drawn: dict[int, list[Result]] = {}
    for result in results:
        drawn.setdefault(result.threads, []).append(result)
    tallest = max(len(rows) for rows in drawn.values())
    every = [1.0, *(result.ratio for result in results if result.ratio)]
    figure = Figure(figsize=(7.5 * len(drawn), 1.6 + 0.28 * tallest), layout="constrained")
    panels = figure.subplots(1, len(drawn), squeeze=False)[0]
    for axes, (threads, rows) in zip(panels, drawn.items(), strict=True):
        ratios = [row.ratio or 1.0 for row in rows]
        colors = [FASTER if ratio >= 1 else SLOWER for ratio in ratios]
        axes.barh([row.name for row in rows], [ratio - 1 for ratio in ratios], left=1, color=colors)
        for height, (row, ratio) in enumerate(zip(rows, ratios, strict=True)):
            axes.text(max(ratio, 1), height, _bar_label(row), fontsize=8, va="center")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(min(every) / 1.3, max(every) * 6)  # room for the labels
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(tallest - 0.5, -0.5)
        axes.set_title(f"{threads} thread{'s' if threads > 1 else ''}", fontsize=10)
        axes.set_xlabel("fastest peer's time / ours")
        axes.spines[["top", "right"]].set_visible(False)
    machine = about["machine"]
    figure.suptitle(
        f"{machine['cpu']}, {machine['cores']} cores, commit {about['commit']}, {about['date'][:10]}", fontsize=9
    )
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=130)


def _bar_label(result: Result) -> str:
    if result.differs:
        return " answers differ"
    return f" {result.ratio:.2f} {result.fastest_peer}" if result.ratio else " no peer"
