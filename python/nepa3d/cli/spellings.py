"""Types of flags that the command line spells in the track document's way: 0 and 1 for a bool, -1 for None."""

from __future__ import annotations

from typing import Annotated, Any

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from nepa3d.cli.flags import Spelled


def _none_is_minus_one(value: Any) -> int:
    return -1 if value is None else int(value)


Switch = Annotated[
    bool,
    tyro.conf.FlagConversionOff,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{0,1}",
        choices=("0", "1"),
        instance_from_str=lambda words: words[0] == "1",
        is_instance=lambda value: isinstance(value, bool),
        str_from_instance=lambda value: [f"{value:d}"],
    ),
    Spelled(int, bool),
]
"""A bool, spelled 0 or 1."""

OptionalSwitch = Annotated[
    "bool | None",
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{-1,0,1}",
        choices=("-1", "0", "1"),
        instance_from_str=lambda words: None if words[0] == "-1" else words[0] == "1",
        is_instance=lambda value: value is None or isinstance(value, bool),
        str_from_instance=lambda value: [f"{_none_is_minus_one(value)}"],
    ),
    Spelled(_none_is_minus_one, lambda spelling: None if spelling == -1 else bool(spelling)),
]
"""A bool, spelled 0 or 1, or None, spelled -1."""

OptionalCount = Annotated[
    "int | None",
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="INT",
        instance_from_str=lambda words: None if int(words[0]) == -1 else int(words[0]),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: [f"{_none_is_minus_one(value)}"],
    ),
    Spelled(_none_is_minus_one, lambda spelling: None if spelling == -1 else int(spelling)),
]
"""A number, or None, spelled -1."""
