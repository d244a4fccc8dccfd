"""Whether models beat the controls of each probe, in one sentence, and every result's figures beside its controls'."""

from __future__ import annotations

from dataclasses import dataclass

from nepa3d.probes.judged import Judged
from nepa3d.probes.table import PROBES
from nepa3d.report.experiment import Experiment


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
    """A verdict for each probe with results that are judged."""
    found = []
    for name, kind in PROBES.items():
        judged = [one for _, result in experiment.of(name) for one in kind.judged(result)]
        if judged:
            found.append(Verdict(kind.judged_as or kind.name, tuple(judged)))
    return found
