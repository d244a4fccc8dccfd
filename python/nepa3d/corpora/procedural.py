"""A built-in corpus: labelled shapes drawn from parametric families, for machines without any data set.

``y`` is up and sizes are of order 1. A shape is a union of closed solids that may overlap. Its parameters
depend on (seed, class, index) only, never on how many shapes are asked for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable

import numpy as np
from numpy.random import MT19937, RandomState, SeedSequence

from nepa3d.corpora.solids import Solid, box, revolve, rod, skin, smooth, superellipsoid, tube, union, vessel


def legs(rng: RandomState, width: float, depth: float, height: float, thickness: float) -> list[Solid]:
    """Four legs, square or round and tapered, under a ``width`` x ``depth`` plate at ``height``."""
    square, taper, spread = rng.uniform() < 0.5, rng.uniform(0.5, 1.0), rng.uniform(0.0, 0.15)
    solids = []
    for x in (-1, 1):
        for z in (-1, 1):
            top = np.array([x * (width / 2 - thickness), height, z * (depth / 2 - thickness)])
            if square:
                size = (thickness, height, thickness)
                solids.append(box(top - (0, height / 2, 0), size))
            else:
                foot = top * (1 + spread, 0, 1 + spread)
                solids.append(rod(foot, top, (thickness / 2 * taper, thickness / 2)))
    return solids


def table(rng: RandomState) -> Solid:
    width, depth, height = rng.uniform(0.8, 2.0), rng.uniform(0.6, 1.1), rng.uniform(0.4, 1.0)
    thick = rng.uniform(0.03, 0.1)
    if rng.uniform() < 0.6:
        parts = [
            box((0, height + thick / 2, 0), (width, thick, depth)),
            *legs(rng, width, depth, height, thick * 1.2),
        ]
        if rng.uniform() < 0.3:
            parts.append(box((0, height * 0.3, 0), (width * 0.95, thick / 2, depth * 0.9)))
        return union(parts)
    top = revolve([(0, height), (depth, height), (depth, height + thick), (0, height + thick)], 48)
    foot, stem = rng.uniform(0.4, 0.8) * depth, rng.uniform(0.05, 0.12)
    knots = smooth([(foot, 0.03), (stem, 0.15), (stem, height * 0.8), (stem * 2, height + thick / 2)], 20)
    return union([top, revolve(np.concatenate([[(0, 0), (foot, 0)], knots, [(0, height + thick / 2)]]))])


def chair(rng: RandomState) -> Solid:
    width, depth, height = rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.6), rng.uniform(0.4, 0.55)
    thick, back, lean = rng.uniform(0.03, 0.07), rng.uniform(0.35, 0.7), rng.uniform(0.0, 0.12)
    parts = [box((0, height + thick / 2, 0), (width, thick, depth)), *legs(rng, width, depth, height, thick)]
    z, top = -depth / 2 + thick / 2, height + back
    for x in (-width / 2 + thick / 2, width / 2 - thick / 2):
        parts.append(rod((x, height, z), (x, top, z - lean), thick / 2))
    count = rng.randint(1, 5)
    slat = back * rng.uniform(0.4, 0.8) / count
    for along in (np.arange(count) + 0.6) / (count + 0.2):
        parts.append(box((0, height + back * along, z - lean * along), (width - thick, slat, thick * 0.6)))
    if rng.uniform() < 0.4:
        for x in (-width / 2, width / 2):
            parts.append(box((x, height + back * 0.4, 0), (thick, thick, depth)))
            parts.append(rod((x, height, depth * 0.4), (x, height + back * 0.4, depth * 0.4), thick / 2))
    return union(parts)


def shelf(rng: RandomState) -> Solid:
    width, height, depth = rng.uniform(0.5, 1.5), rng.uniform(0.8, 2.0), rng.uniform(0.2, 0.45)
    thick, count, columns = rng.uniform(0.02, 0.05), rng.randint(3, 7), rng.randint(1, 4)
    parts = [box((x, height / 2, 0), (thick, height, depth)) for x in np.linspace(-width / 2, width / 2, columns + 1)]
    parts += [box((0, y, 0), (width, thick, depth)) for y in np.linspace(thick, height - thick / 2, count)]
    if rng.uniform() < 0.6:
        parts.append(box((0, height / 2, -depth / 2), (width, height, thick / 2)))
    return union(parts)


def bed(rng: RandomState) -> Solid:
    width, length, height = rng.uniform(0.9, 2.0), rng.uniform(1.9, 2.2), rng.uniform(0.2, 0.4)
    thick, mattress, head = rng.uniform(0.05, 0.1), rng.uniform(0.12, 0.3), rng.uniform(0.4, 0.9)
    parts = [
        box((0, height + thick / 2, 0), (width, thick, length)),
        *legs(rng, width, length, height, thick),
    ]
    parts.append(box((0, height + thick + mattress / 2, 0), (width * 0.96, mattress, length * 0.96), 4))
    parts.append(box((0, (height + head) / 2, -length / 2), (width, height + head, thick)))
    if rng.uniform() < 0.5:
        parts.append(box((0, (height + head / 2) / 2, length / 2), (width, height + head / 2, thick)))
    count = 1 if width < 1.3 else 2
    for x in (np.arange(count) - (count - 1) / 2) * width / count:
        pillow = superellipsoid((width / count * 0.4, 0.08, 0.2), 0.6, 0.5, 24)
        place = np.array([x, height + thick + mattress + 0.06, -length * 0.36])
        parts.append(Solid(pillow.vertices + place, pillow.faces))
    return union(parts)


def stairs(rng: RandomState) -> Solid:
    count, rise, run, width = (
        rng.randint(4, 13),
        rng.uniform(0.1, 0.2),
        rng.uniform(0.2, 0.35),
        rng.uniform(0.6, 1.4),
    )
    is_open = rng.uniform() < 0.4
    parts = []
    for step in range(count):
        low = step * rise + rise * 0.7 if is_open else 0.0
        high = (step + 1) * rise
        parts.append(box((0, (low + high) / 2, step * run), (width, high - low, run * 1.05)))
    if is_open or rng.uniform() < 0.5:
        up = 0.0 if is_open else rng.uniform(0.6, 0.9)
        for x in (-width / 2, width / 2):
            parts.append(rod((x, rise / 2 + up, 0), (x, (count - 0.5) * rise + up, (count - 1) * run), 0.04))
            for step in () if is_open else (0, count - 1):
                parts.append(rod((x, 0, step * run), (x, (step + 0.5) * rise + up, step * run), 0.025))
    return union(parts)


def ladder(rng: RandomState) -> Solid:
    count, gap, width = rng.randint(5, 13), rng.uniform(0.2, 0.35), rng.uniform(0.3, 0.6)
    taper, thick, lean = rng.uniform(0.6, 1.0), rng.uniform(0.02, 0.04), rng.uniform(0.0, 0.3)
    height = gap * (count + 1)
    parts = [
        rod((side * width / 2, 0, 0), (side * width / 2 * taper, height, -lean * height), thick) for side in (-1, 1)
    ]
    for along in np.arange(1, count + 1) / (count + 1):
        half = width / 2 * (1 + (taper - 1) * along)
        y, z = height * along, -lean * height * along
        parts.append(rod((-half, y, z), (half, y, z), thick * 0.7))
    return union(parts)


def lamp(rng: RandomState) -> Solid:
    height, foot, stem = rng.uniform(0.5, 1.8), rng.uniform(0.12, 0.25), rng.uniform(0.01, 0.03)
    shade, wide, ratio = rng.uniform(0.2, 0.4), rng.uniform(0.15, 0.35), rng.uniform(0.3, 1.0)
    low, wall = height - shade, 0.012
    inner = [(wide - wall, low), (wide * ratio - wall, height - wall), (0, height - wall)]
    hood = revolve([(0, height), (wide * ratio, height), (wide, low), *inner])
    base = smooth([(foot, 0.02), (stem * 1.5, rng.uniform(0.06, 0.3))], 12)
    stand = revolve(
        np.concatenate([[(0, 0), (foot, 0)], base, [(stem, base[-1, 1] + 0.02), (stem, height), (0, height)]])
    )
    return union([hood, stand])


def bottle(rng: RandomState) -> Solid:
    height, body, neck = rng.uniform(0.6, 1.2), rng.uniform(0.12, 0.25), rng.uniform(0.3, 0.5)
    shoulder, low = rng.uniform(0.45, 0.65), rng.uniform(0.1, 0.2)
    knots = [(body * 0.9, 0), (body, height * low), (body, height * shoulder), (body * neck, height * 0.8)]
    return vessel(smooth([*knots, (body * neck, height)], 32), body * neck * 0.25, 0.03)


def vase(rng: RandomState) -> Solid:
    height = rng.uniform(0.5, 1.2)
    radii = rng.uniform(0.14, 0.42, size=rng.randint(4, 7))
    knots = np.stack([radii, np.linspace(0, height, len(radii))], axis=1)
    return vessel(smooth(knots, 36), rng.uniform(0.02, 0.05), 0.04)


def mug(rng: RandomState) -> Solid:
    height, radius, flare = rng.uniform(0.6, 1.2), rng.uniform(0.3, 0.5), rng.uniform(0.85, 1.2)
    cup = vessel(smooth([(radius, 0), (radius * flare, height)], 20), rng.uniform(0.03, 0.06), 0.06)
    angle = np.linspace(-np.pi / 2, np.pi / 2, 20)
    reach, half = rng.uniform(0.2, 0.35), height * rng.uniform(0.22, 0.36)
    start = radius * min(1.0, flare) - 0.02
    path = np.stack([start + reach * np.cos(angle), height / 2 + half * np.sin(angle), 0 * angle], axis=1)
    return union([cup, tube(path, rng.uniform(0.03, 0.06))])


def goblet(rng: RandomState) -> Solid:
    height, foot, stem = rng.uniform(0.8, 1.3), rng.uniform(0.18, 0.3), rng.uniform(0.02, 0.04)
    bowl, rim, begin = rng.uniform(0.2, 0.35), rng.uniform(0.7, 1.1), rng.uniform(0.35, 0.55)
    knots = [
        (foot, 0),
        (stem, 0.1),
        (stem, height * begin),
        (bowl, height * (begin + 0.25)),
        (bowl * rim, height),
    ]
    outside = smooth(knots, 48)
    inside = outside[outside[:, 1] > height * (begin + 0.08)][::-1] - (0.015, 0)
    return revolve(np.concatenate([[(0, 0)], outside, inside, [(0, inside[-1, 1])]]))


def torus(rng: RandomState) -> Solid:
    angle = np.arange(48) * (2 * np.pi / 48)
    ring, thick, oval = rng.uniform(0.5, 1.0), rng.uniform(0.1, 0.35), rng.uniform(0.6, 1.0)
    waves, depth = rng.randint(2, 7), rng.uniform(0.0, 0.3)
    path = np.stack([ring * np.cos(angle), 0 * angle, ring * oval * np.sin(angle)], axis=1)
    return tube(path, ring * thick * (1 + depth * np.cos(waves * angle)), 20, closed=True)


def knot(rng: RandomState) -> Solid:
    turns, winds = ((2, 3), (3, 2), (2, 5), (3, 4))[rng.randint(4)]
    t = np.arange(160) * (2 * np.pi / 160)
    hole, flat = rng.uniform(0.3, 0.45), rng.uniform(0.7, 1.3)
    ring = 1 + hole * np.cos(winds * t)
    path = np.stack([ring * np.cos(turns * t), hole * flat * np.sin(winds * t), ring * np.sin(turns * t)], axis=1)
    return tube(path, rng.uniform(0.06, 0.16), 12, closed=True)


def gear(rng: RandomState) -> Solid:
    teeth, height, bite = rng.randint(8, 25), rng.uniform(0.1, 0.5), rng.uniform(0.1, 0.25)
    sharp, hole = rng.uniform(2.0, 8.0), rng.uniform(0.15, 0.55)
    angle = np.arange(teeth * 12) * (2 * np.pi / (teeth * 12))
    outer = 1 + bite * np.tanh(sharp * np.cos(teeth * angle)) / 2
    rings = []
    for radius, y in ((outer, 0), (outer, height), (hole + 0 * outer, height), (hole + 0 * outer, 0)):
        rings.append(np.stack([radius * np.cos(angle), y + 0 * angle, radius * np.sin(angle)], axis=1))
    return skin(np.stack(rings))


def spring(rng: RandomState) -> Solid:
    coils, pitch, thick = rng.uniform(3, 9), rng.uniform(0.25, 0.5), rng.uniform(0.04, 0.11)
    taper = rng.uniform(0.4, 1.0)
    t = np.linspace(0, 1, int(coils * 24))
    radius, angle = 0.5 * (1 + (taper - 1) * t), 2 * np.pi * coils * t
    path = np.stack([radius * np.cos(angle), pitch * coils * t, radius * np.sin(angle)], axis=1)
    return tube(path, thick)


def superquadric(rng: RandomState) -> Solid:
    sizes, round_y, round_xz = rng.uniform(0.4, 1.0, size=3), rng.uniform(0.3, 1.9), rng.uniform(0.3, 1.9)
    return superellipsoid(tuple(sizes), round_y, round_xz, 40)


FAMILIES: dict[str, Callable[[RandomState], Solid]] = {
    family.__name__: family
    for family in (
        *(table, chair, shelf, bed, stairs, ladder, lamp, bottle),
        *(vase, mug, goblet, torus, knot, gear, spring, superquadric),
    )
}


def procedural_shape(name: str, index: int, seed: int) -> Solid:
    """Shape ``index`` of class ``name``, the same whatever else is drawn. ValueError for an unknown class."""
    if name not in FAMILIES:
        raise ValueError(f"name: expected one of {', '.join(FAMILIES)}, got {name!r}")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index: expected 0 or more, got {seed} and {index}")
    rng = RandomState(MT19937(SeedSequence([seed, zlib.crc32(name.encode()), index])))
    return FAMILIES[name](rng)


def obj_bytes(solid: Solid) -> bytes:
    """``solid`` as a Wavefront OBJ file, six decimals."""
    vertices = np.round(solid.vertices, 6) + 0.0  # no negative zeros
    lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in vertices.tolist()]
    lines += [f"f {a} {b} {c}" for a, b, c in (solid.faces + 1).tolist()]
    return ("\n".join(lines) + "\n").encode()
