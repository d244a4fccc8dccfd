"""Morton order of points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchmarks.agreement import same_integers
from benchmarks.harness import Contender, Row, case
from benchmarks.inputs import Float, Inputs, Int
from nepa3d import ops


@case("Morton order")
def morton_order(inputs: Inputs, threads: int) -> Row:
    queries = inputs.queries
    return Row(
        size={"points": len(queries)},
        ours=Contender(lambda: ops.morton_order(queries)),
        peers={"numpy": lambda: Contender(lambda: numpy_morton_order(queries))},
        compare=same_integers,
    )


def numpy_morton_order(xyz: Float) -> Int:
    """``ops.morton_order`` as one would write it in NumPy: bits spread by shifts and masks, then a stable sort."""
    cell = ((xyz / np.float32(2) + np.float32(0.5)) * np.float32(1023)).clip(0, 1023).astype(np.uint32)
    x, y, z = spread_bits(cell).T
    return np.argsort(x | y << 1 | z << 2, kind="stable")


def spread_bits(value: NDArray[np.uint32]) -> NDArray[np.uint32]:
    """Bit i of 10 to bit 3 i."""
    value = (value | value << 16) & np.uint32(0x030000FF)
    value = (value | value << 8) & np.uint32(0x0300F00F)
    value = (value | value << 4) & np.uint32(0x030C30C3)
    return (value | value << 2) & np.uint32(0x09249249)
