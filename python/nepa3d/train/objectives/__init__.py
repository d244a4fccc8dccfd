"""The table of objectives: each is a file of this folder, and a row here."""

from nepa3d.train.objectives.mae import MAE, choose_masked, mae_errors, mae_loss
from nepa3d.train.objectives.nepa import NEPA, nepa_errors, nepa_loss, nepa_targets
from nepa3d.train.objectives.objective import Choice, Objective, Tallied, Term, Tokens
from nepa3d.train.objectives.query import ALIGN, ANSWER, QUERY
from nepa3d.train.objectives.tokens import MicroBatch, TokenObjective, hide, micro_batches

OBJECTIVES: dict[str, Objective] = {"nepa": NEPA, "mae": MAE, "answer": ANSWER, "align": ALIGN, "query": QUERY}

__all__ = [
    "OBJECTIVES",
    "Choice",
    "MicroBatch",
    "Objective",
    "Tallied",
    "Term",
    "TokenObjective",
    "Tokens",
    "choose_masked",
    "hide",
    "mae_errors",
    "mae_loss",
    "micro_batches",
    "nepa_errors",
    "nepa_loss",
    "nepa_targets",
]
