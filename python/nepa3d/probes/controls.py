"""What a probe's results are compared with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Control:
    """One control of a probe, and what it is called."""

    key: str
    """In result files."""
    row: str
    """In tables and drawings."""
    title: str
    """On the terminal."""
    against: str
    """In doubts, as in: no better than ..."""
    judge: str
    """In verdicts."""
    note: str
    """What it is, in tables."""
    of_model: bool = False
    """Whether it is one of the model's architecture."""
