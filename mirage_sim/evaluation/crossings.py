"""Crossings: whether a motion passed through a surface, asked anew, patch by patch and edge by edge.

Slow and plain on purpose: it judges what collisions let pass and shares no code with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from mirage_sim.memory import SurfacePatches

Point = tuple[float, float]


def segments_cross(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Tell whether the segment from a to b passes from one side of the segment from c to d to the other."""

    def side(p: Point, q: Point, r: Point) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    return side(a, b, c) * side(a, b, d) < 0 and side(c, d, a) * side(c, d, b) < 0


def crossed_patches(
    patches: SurfacePatches, start: Sequence[float], end: Sequence[float], low: float = 0.1, high: float = 1.6
) -> list[int]:
    """Find the patches of a memory into which an upright line that moves straight ahead runs.

    A patch is a square that faces the view in which it was written. Seen from above it is a rectangle; the
    line runs into it if it starts outside and passes one of its edges.

    Args:
        patches: What the memory held before.
        start: Where the line stood, (x, y) or (x, y, z) in metres.
        end: Where it went.
        low: Lower end of the line, metres above the floor; patches with a lower centre stop nobody.
        high: Upper end.

    Returns:
        Their numbers.
    """
    a, b = (start[0], start[1]), (end[0], end[1])
    found = []
    rows = zip(patches.positions.tolist(), patches.footprint.tolist(), patches.view_dir.tolist(), strict=True)
    for number, ((x, y, z), footprint, view) in enumerate(rows):
        near = math.hypot(x - a[0], y - a[1]) < math.dist(a, b) + footprint
        if low < z < high and near:
            corners = _outline((x, y), 0.5 * footprint, view)
            edges = [(corners[i], corners[(i + 1) % 4]) for i in range(4)]
            if not _inside(a, corners) and any(segments_cross(a, b, *edge) for edge in edges):
                found.append(number)
    return found


def _outline(centre: Point, half: float, view: Sequence[float]) -> list[Point]:
    """Corners, in turn, of a square of twice `half` that faces a view, seen from above."""
    flat = math.hypot(view[0], view[1])
    along = (view[0] / flat, view[1] / flat) if flat > 1e-3 else (1.0, 0.0)
    deep = (along[0] * half * abs(view[2]), along[1] * half * abs(view[2]))
    wide = (-along[1] * half, along[0] * half)
    signs = ((1, 1), (1, -1), (-1, -1), (-1, 1))
    return [(centre[0] + s * deep[0] + t * wide[0], centre[1] + s * deep[1] + t * wide[1]) for s, t in signs]


def _inside(point: Point, corners: list[Point]) -> bool:
    turns = []
    for i in range(4):
        (x0, y0), (x1, y1) = corners[i], corners[(i + 1) % 4]
        turns.append((x1 - x0) * (point[1] - y0) - (y1 - y0) * (point[0] - x0))
    return all(turn > 0 for turn in turns) or all(turn < 0 for turn in turns)
