"""Checks of arguments, whose errors say the argument, what was expected and what came."""

from __future__ import annotations

import math
from typing import get_args


def require_choice(argument: str, value: object, choices: object) -> None:
    """``ValueError`` unless the value is one of ``choices``, a ``Literal``."""
    allowed = get_args(choices)
    if value not in allowed:
        raise ValueError(f"{argument} must be one of {', '.join(map(str, allowed))}, got {value!r}")


def require_at_least(least: float, **values: float) -> None:
    """``ValueError`` naming the first of the values that is below ``least``, or not a number."""
    for name, value in values.items():
        if not value >= least:
            raise ValueError(f"{name} must be at least {least}, got {value}")


def require_positive(**values: float) -> None:
    """``ValueError`` naming the first of the values that is not above 0, or not finite."""
    for name, value in values.items():
        if not 0 < value < math.inf:
            raise ValueError(f"{name} must be positive, got {value}")
