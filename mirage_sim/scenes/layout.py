"""The plan of a flat: rooms cut from a rectangle, joined by doorways, with windows in the outer walls."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

WALL_THICKNESS = 0.14
MIN_ROOM_SIDE = 2.6

# South, east, north, west as (origin x end, origin y end, direction); seen from inside, u runs left to right.
_WALL_FRAMES = ((1, 0, (-1, 0)), (1, 1, (0, -1)), (0, 1, (1, 0)), (0, 0, (0, 1)))


@dataclass(frozen=True)
class Opening:
    """A rectangular hole in a wall of a room, in wall coordinates."""

    kind: Literal["door", "window"]
    """What the hole is."""
    u0: float
    """Left end along the wall as seen from inside the room, metres."""
    u1: float
    """Right end, metres."""
    v0: float
    """Lower edge above the floor, metres."""
    v1: float
    """Upper edge above the floor, metres."""


@dataclass
class Room:
    """One rectangular room; `x` and `y` are the extents between its wall faces."""

    x: tuple[float, float]
    """West and east face, metres."""
    y: tuple[float, float]
    """South and north face, metres."""
    kind: str = "living"
    """What the room is furnished as."""
    openings: tuple[list[Opening], list[Opening], list[Opening], list[Opening]] = field(
        default_factory=lambda: ([], [], [], [])
    )
    """Holes per wall: south, east, north, west."""

    @property
    def size(self) -> tuple[float, float]:
        """Width (x) and depth (y) in metres."""
        return self.x[1] - self.x[0], self.y[1] - self.y[0]

    @property
    def centre(self) -> tuple[float, float]:
        """Middle of the room, metres."""
        return (self.x[0] + self.x[1]) / 2, (self.y[0] + self.y[1]) / 2

    def wall_length(self, wall: int) -> float:
        """Length of wall 0-3 (south, east, north, west) in metres."""
        return self.size[wall % 2]

    def wall_point(self, wall: int, u: float, inset: float = 0.0) -> tuple[float, float]:
        """Point at `u` metres along a wall and `inset` metres into the room."""
        ox, oy, (dx, dy) = _WALL_FRAMES[wall]
        # The inward normal is the direction turned a quarter to the right as seen from above.
        return self.x[ox] + dx * u + dy * inset, self.y[oy] + dy * u - dx * inset

    def wall_yaw(self, wall: int) -> float:
        """Turn about the vertical that puts local -y (an object's back) against a wall, radians."""
        dx, dy = _WALL_FRAMES[wall][2]
        return math.atan2(-dy, -dx)

    def contains(self, x: float, y: float) -> bool:
        """Whether a point is between the wall faces."""
        return self.x[0] <= x <= self.x[1] and self.y[0] <= y <= self.y[1]


@dataclass(frozen=True)
class Doorway:
    """A passage between two rooms."""

    rooms: tuple[int, int]
    """Indices of the rooms it joins."""
    x: tuple[float, float]
    """Extent of the passage in x, metres."""
    y: tuple[float, float]
    """Extent of the passage in y, metres."""
    height: float
    """Height of the passage, metres."""


@dataclass
class Layout:
    """A whole flat."""

    width: float
    """Outer face to outer face in x, metres, from 0."""
    depth: float
    """Outer face to outer face in y, metres, from 0."""
    height: float
    """Floor to ceiling, metres."""
    rooms: list[Room]
    """The rooms."""
    doorways: list[Doorway]
    """The passages between them."""


def _cut_rooms(rng: np.random.Generator, width: float, depth: float, count: int) -> list[Room]:
    half = WALL_THICKNESS / 2
    rooms = [Room((WALL_THICKNESS, width - WALL_THICKNESS), (WALL_THICKNESS, depth - WALL_THICKNESS))]
    while len(rooms) < count:
        room = max(rooms, key=lambda r: r.size[0] * r.size[1])
        side = int(room.size[1] > room.size[0])
        length = room.size[side]
        if length < 2 * MIN_ROOM_SIDE + WALL_THICKNESS:
            break
        low, high = (room.x, room.y)[side]
        share = max(MIN_ROOM_SIDE + half, float(rng.uniform(0.38, 0.62)) * length)
        cut = low + min(share, length - MIN_ROOM_SIDE - half)
        rooms.remove(room)
        for part in ((low, cut - half), (cut + half, high)):
            rooms.append(Room(part, room.y) if side == 0 else Room(room.x, part))
    return rooms


def _shared_walls(rooms: list[Room]) -> list[tuple[int, int, int, float, float]]:
    """Pairs of neighbours as (a, b, wall of a, start, end of the overlap); b lies east or north of a."""
    found = []
    for a, first in enumerate(rooms):
        for b, second in enumerate(rooms):
            for axis, wall in ((0, 1), (1, 2)):
                near, far = (first.x, first.y)[axis], (second.x, second.y)[axis]
                if abs(far[0] - near[1] - WALL_THICKNESS) > 1e-6:
                    continue
                along_a, along_b = (first.x, first.y)[1 - axis], (second.x, second.y)[1 - axis]
                start, end = max(along_a[0], along_b[0]), min(along_a[1], along_b[1])
                if end - start > 1.6:
                    found.append((a, b, wall, start, end))
    return found


def _add_doors(rng: np.random.Generator, rooms: list[Room]) -> list[Doorway]:
    walls = _shared_walls(rooms)
    groups = list(range(len(rooms)))
    doorways = []
    height = float(rng.uniform(2.02, 2.15))
    for index in rng.permutation(len(walls)).tolist():
        a, b, wall, start, end = walls[index]
        if groups[a] == groups[b] and rng.random() > 0.35:
            continue
        groups = [groups[a] if g == groups[b] else g for g in groups]
        low, high = (1.1, 1.5) if rng.random() < 0.7 else (1.6, 2.2)
        width = min(float(rng.uniform(low, high)), end - start - 0.4)
        low = start + 0.2 + float(rng.random()) * (end - start - 0.4 - width)
        high = low + width
        first, second = rooms[a], rooms[b]
        if wall == 1:
            first.openings[1].append(Opening("door", first.y[1] - high, first.y[1] - low, 0.0, height))
            second.openings[3].append(Opening("door", low - second.y[0], high - second.y[0], 0.0, height))
            doorways.append(Doorway((a, b), (first.x[1], second.x[0]), (low, high), height))
        else:
            first.openings[2].append(Opening("door", low - first.x[0], high - first.x[0], 0.0, height))
            second.openings[0].append(Opening("door", second.x[1] - high, second.x[1] - low, 0.0, height))
            doorways.append(Doorway((a, b), (low, high), (first.y[1], second.y[0]), height))
    return doorways


def _add_windows(rng: np.random.Generator, rooms: list[Room], width: float, depth: float) -> None:
    sill, top = float(rng.uniform(0.75, 1.0)), float(rng.uniform(2.0, 2.2))
    for room in rooms:
        outer = [
            room.y[0] <= WALL_THICKNESS + 1e-6,
            room.x[1] >= width - WALL_THICKNESS - 1e-6,
            room.y[1] >= depth - WALL_THICKNESS - 1e-6,
            room.x[0] <= WALL_THICKNESS + 1e-6,
        ]
        walls = [wall for wall in range(4) if outer[wall]]
        for wall in rng.permutation(walls)[: int(rng.integers(1, 3))].tolist():
            length = room.wall_length(wall)
            span = min(float(rng.uniform(1.1, 2.2)), length - 0.8)
            u0 = 0.4 + float(rng.random()) * (length - 0.8 - span)
            low = 0.25 if rng.random() < 0.15 else sill
            room.openings[wall].append(Opening("window", u0, u0 + span, low, top))


def make_layout(rng: np.random.Generator) -> Layout:
    """Draw the plan of a flat.

    Args:
        rng: Source of every choice.

    Returns:
        Two to four rooms, all reachable from one another through doorways.

    Source: ours.
    """
    count = int(rng.integers(2, 5))
    width = float(rng.uniform(6.2, 7.6)) + (0.0, 0.4, 1.8)[count - 2]
    depth = float(rng.uniform(4.0, 5.2)) + (0.0, 1.6, 1.9)[count - 2]
    if rng.random() < 0.5:
        width, depth = depth, width
    rooms = _cut_rooms(rng, width, depth, count)
    doorways = _add_doors(rng, rooms)
    _add_windows(rng, rooms, width, depth)
    kinds = ["living", "bedroom", "kitchen", "study"]
    for room, pick in zip(rooms, rng.permutation(4).tolist(), strict=False):
        room.kind = kinds[pick]
    return Layout(width, depth, float(rng.uniform(2.45, 2.75)), rooms, doorways)
