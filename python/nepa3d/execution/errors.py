"""Errors that tasks report by kind."""

from __future__ import annotations


class BadInputError(ValueError):
    """A file whose contents cannot be used; its message names the file and the fault."""
