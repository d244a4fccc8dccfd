"""The table of objectives: each is a file of this folder, and a row here."""

from nepa3d.train.objectives.mae import MAE, choose_masked, hide, mae_errors, mae_loss
from nepa3d.train.objectives.nepa import NEPA, nepa_errors, nepa_loss, nepa_targets
from nepa3d.train.objectives.objective import Choice, Objective, Tokens

OBJECTIVES: dict[str, Objective] = {"nepa": NEPA, "mae": MAE}

__all__ = [
    "OBJECTIVES",
    "Choice",
    "Objective",
    "Tokens",
    "choose_masked",
    "hide",
    "mae_errors",
    "mae_loss",
    "nepa_errors",
    "nepa_loss",
    "nepa_targets",
]
