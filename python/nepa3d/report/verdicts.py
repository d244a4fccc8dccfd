"""Whether models beat the controls of each probe, in one sentence, and every result's figures beside its controls'."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from nepa3d.probes.intervals import cell
from nepa3d.report.experiment import Experiment, Json
from nepa3d.report.findings import PROBES, name_of

Outcome = Literal["surely", "unsure", "no", "missing"]

CLASS_CONTROLS = {
    "raw_distances": "plain distances",
    "random_init": "the untrained model",
    "majority": "the commonest class",
}


@dataclass(frozen=True)
class Compared:
    """A result beside one control."""

    control: str
    value: float | None  # the control's figure; None where the result lacks the control
    outcome: Outcome  # better with 95 % confidence, better, no better
    digits: int = 3

    def __str__(self) -> str:
        if self.value is None:
            return f"{self.control}: missing from the result"
        said = {"surely": "surely better than", "unsure": "not surely better than", "no": "no better than"}
        return f"{said[self.outcome]} {self.control} ({cell(self.value, self.digits)})"


@dataclass(frozen=True)
class Judged:
    """One figure of a result, and what the controls say of it."""

    model: str
    setting: str
    figure: str
    compared: tuple[Compared, ...]
    flaw: str = ""  # for which it counts as no better, whatever its figure

    @property
    def beats(self) -> Outcome:
        """The worst of the outcomes."""
        outcomes = {compared.outcome for compared in self.compared}
        order: tuple[Outcome, ...] = ("no", "unsure", "missing", "surely")
        return "no" if self.flaw else next(outcome for outcome in order if outcome in outcomes)

    def __str__(self) -> str:
        said = ", ".join([*map(str, self.compared), *filter(None, [self.flaw])])
        return f"{self.model}, {self.setting}: {self.figure}: {said}"


@dataclass(frozen=True)
class Verdict:
    """What a probe says of the models."""

    probe: str
    results: tuple[Judged, ...]

    @property
    def answer(self) -> str:
        """Yes if every result is surely better than every control; what a result lacks leaves it open."""
        outcomes = [judged.beats for judged in self.results]
        surely = outcomes.count("surely")
        if surely == len(outcomes):
            return "yes"
        if surely:
            return "in part"
        if "missing" in outcomes:
            return "cannot be said"
        return "not surely" if "unsure" in outcomes else "no"

    @property
    def reason(self) -> str:
        """The rest of the sentence: the figures of a single result, or how many results beat the controls."""
        if len(self.results) == 1:
            return f"{self.results[0]}."
        models = dict.fromkeys(judged.model for judged in self.results)
        controls = dict.fromkeys(compared.control for judged in self.results for compared in judged.compared)
        said = ", ".join(f"by {model} in {self._beaten_by(model)} results" for model in models)
        return f"every control is surely beaten {said} (each control: {', '.join(map(self._against, controls))})."

    def _beaten_by(self, model: str) -> str:
        own = [judged.beats for judged in self.results if judged.model == model]
        return f"{own.count('surely')} of {len(own)}"

    def _against(self, control: str) -> str:
        found = [c.outcome for judged in self.results for c in judged.compared if c.control == control]
        missing = f", missing from {found.count('missing')}" if "missing" in found else ""
        return f"{control} {found.count('surely')} of {len(found)}{missing}"


def verdicts(experiment: Experiment) -> list[Verdict]:
    """A verdict for each probe with results. Runs that are controls themselves, with a question changed, are left
    out."""
    judged = {
        "Retrieval": [_retrieval(r) for _, r in experiment.retrievals if not _ablated(r)],
        "Completion": [_completion(r) for _, r in experiment.completions if r.get("context", "own") == "own"],
        "Classes": [_class(r, kind) for _, r in experiment.classifications for kind in PROBES],
    }
    return [Verdict(probe, tuple(results)) for probe, results in judged.items() if results]


def _ablated(result: Json) -> bool:
    return bool(result.get("ablate_point_xyz") or result.get("ablate_point_dist"))


def _retrieval(r: Json) -> Judged:
    interval = (r.get("interval") or {}).get("mAP")
    low = interval[0] if interval else None
    controls = {"plain distances": r.get("raw_distances"), "chance": r.get("chance")}
    compared = [
        Compared(control, value["mAP"], _outcome(r["mAP"] - value["mAP"], None if low is None else low - value["mAP"]))
        if value
        else Compared(control, None, "missing")
        for control, value in controls.items()
    ]
    flaw = "the gallery has collapsed" if r.get("collapsed") else ""
    if r.get("shared_draws"):
        flaw = "query and gallery share their draws"
    pair = f"{r.get('query_backend', '?')} → {r.get('gallery_backend', '?')}"
    return Judged(name_of(r.get("ckpt", "")), pair, f"mAP {_figure(r['mAP'], interval)}", tuple(compared), flaw)


def _completion(r: Json) -> Judged:
    interval = (r.get("interval") or {}).get("mae")
    copy = r.get("nearest_copy")
    outcome: Outcome = "missing"
    if copy:
        outcome = _outcome(copy["mae"] - r["mae"], copy["mae"] - interval[1] if interval else None)
    compared = Compared("the nearest-context copy", copy["mae"] if copy else None, outcome, digits=4)
    figure = f"MAE {_figure(r['mae'], interval, 4)}"
    return Judged(name_of(r.get("ckpt", "")), r.get("context_backend", "?"), figure, (compared,))


def _class(r: Json, kind: str) -> Judged:
    """By the accuracy of one classifier; its differences to the controls have paired intervals of their own."""
    compared = []
    for control, title in CLASS_CONTROLS.items():
        known, difference = r.get(control), ((r.get("above") or {}).get(control) or {}).get(kind)
        if not known:
            compared.append(Compared(title, None, "missing"))
            continue
        value = (known if control == "majority" else known[kind])["accuracy"]
        low = difference["low"] if difference else None
        compared.append(Compared(title, value, _outcome(r[kind]["accuracy"] - value, low)))
    flaw = f"nearly all are {r[kind]['collapsed_to']}" if r[kind].get("collapsed_to") else ""
    interval = (r[kind].get("interval") or {}).get("accuracy")
    figure = f"accuracy {_figure(r[kind]['accuracy'], interval)}"
    return Judged(name_of(r["ckpt"]), f"{r['backend']}, {kind}", figure, tuple(compared), flaw)


def _outcome(better_by: float, at_least: float | None) -> Outcome:
    """``at_least``: the lower end of the interval of how much better it is; None where that is not known."""
    if better_by <= 0:
        return "no"
    return "surely" if at_least is not None and at_least > 0 else "unsure"


def _figure(value: float, interval: Sequence[float] | None, digits: int = 3) -> str:
    if interval is None:
        return f"{cell(value, digits)} (no interval)"
    low, high = interval
    return f"{cell(value, digits)} ({cell((low, high), digits)})"
