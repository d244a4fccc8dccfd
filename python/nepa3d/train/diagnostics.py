"""Whether a falling loss means anything: what guesses without the shape would score, and what the model's are like.

A low loss can come from copying, as neighbours in Morton order are nearly equal, or from targets that hold position
and type, which anyone can guess. Letters: B batch, T tokens, D width.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from nepa3d.train.objectives import nepa_targets

MOST_ROWS = 2048  # of predictions whose rank is measured
LEAST_GAP = 0.02
MOST_COPIES = 0.45
TRIVIAL = 0.05  # loss of the guess from position and type below which targets hold little else
LEAST_SPREAD = 1e-3


@dataclass(frozen=True)
class Diagnosis:
    """One batch's figures; losses are 1 - cosine, means over the targets."""

    step: int
    loss: float
    cos_next: float  # of the prediction and its target
    cos_prev: float  # of the prediction and the target before that
    copy_win: float  # part of the predictions that are nearer to the target before
    persistence_loss: float  # of guessing the target before
    mean_loss: float  # of guessing the mean target
    position_type_loss: float  # of guessing the other samples' mean target at this place and of this type
    spread: float  # 1 - mean cosine of two samples' last states
    effective_rank: float  # of the predictions (RankMe, Garrido et al., arXiv 2210.02885)
    width: int

    @property
    def gap(self) -> float:
        """By how much predictions are nearer to their target than to the one before."""
        return self.cos_next - self.cos_prev

    def plain(self) -> dict[str, float]:
        """For a JSON line; what could not be measured is left out."""
        return {name: value for name, value in (asdict(self) | {"gap": self.gap}).items() if value == value}

    def alarms(self) -> list[str]:
        """What makes one distrust the loss, a sentence each."""
        found = []
        guess = self.position_type_loss
        if guess < TRIVIAL:
            found.append(f"position and type alone give a loss of {guess:.4f}: the targets hold little of the shape")
        elif self.loss >= 0.9 * guess:
            found.append(f"the loss {self.loss:.4f} is hardly below that of position and type alone, {guess:.4f}")
        if self.gap < LEAST_GAP or self.copy_win > MOST_COPIES:
            copies = f"cosine gap {self.gap:.4f}, nearer to it in {self.copy_win:.0%}"
            found.append(f"predictions resemble the target before: {copies}")
        if self.spread < LEAST_SPREAD:
            found.append(f"the last states of different samples are nearly one: 1 - mean cosine {self.spread:.1e}")
        return found


@torch.no_grad()
def diagnose(target: Tensor, z_hat: Tensor, h: Tensor, types: Tensor, step: int) -> Diagnosis:
    """Figures of a batch: targets, predictions and states (B, T, D), types (B, T). NaN where a batch has too little."""
    counted = nepa_targets(types)
    unit = F.normalize(target.float(), dim=-1)
    predicted = F.pad(F.normalize(z_hat[:, :-1].float(), dim=-1), (0, 0, 1, 0))
    place = torch.where(counted, torch.arange(types.shape[1], device=types.device), -1)
    before = F.pad(place.cummax(1).values[:, :-1], (1, 0), value=-1)
    previous = unit.gather(1, before.clamp(min=0)[..., None].expand_as(unit))
    both = counted & (before >= 0)
    cos_next, cos_prev = (predicted * unit).sum(-1), (predicted * previous).sum(-1)
    mean = F.normalize(unit[counted].mean(0), dim=0)
    guessed, known = _others_mean(unit, counted, types)
    rows = predicted[counted]
    return Diagnosis(
        step=step,
        loss=float(1 - cos_next[counted].mean()),
        cos_next=float(cos_next[both].mean()),
        cos_prev=float(cos_prev[both].mean()),
        copy_win=float((cos_prev > cos_next)[both].float().mean()),
        persistence_loss=float(1 - (previous * unit).sum(-1)[both].mean()),
        mean_loss=float(1 - (unit @ mean)[counted].mean()),
        position_type_loss=float(1 - (guessed * unit).sum(-1)[known].mean()),
        spread=_spread(F.normalize(h[:, -1].float(), dim=-1)),
        effective_rank=effective_rank(rows[:: max(1, len(rows) // MOST_ROWS)]),
        width=target.shape[2],
    )


def _others_mean(unit: Tensor, counted: Tensor, types: Tensor) -> tuple[Tensor, Tensor]:
    """Of every target the direction of the other samples' mean at its place and of its type, and where there is one."""
    guessed, known = torch.zeros_like(unit), torch.zeros_like(counted)
    for kind in types[counted].unique():
        here = counted & (types == kind)
        number = here.sum(0)
        others = (unit * here[..., None]).sum(0) - unit
        guessed = torch.where(here[..., None], F.normalize(others, dim=-1), guessed)
        known |= here & (number > 1)
    return guessed, known


def _spread(unit: Tensor) -> float:
    count = len(unit)
    if count < 2:
        return float("nan")
    return float(1 - ((unit.sum(0) ** 2).sum() - count) / (count * (count - 1)))


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the singular values of (n, D): 1 if all rows are multiples of one, at most D."""
    values = torch.linalg.svdvals(rows.float())
    part = values / values.sum().clamp(min=1e-12)
    return float(torch.exp(-(part * part.clamp(min=1e-12).log()).sum()))
