"""Where things stand: furniture against walls and in the middle, never blocking a way between doors."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from mirage_sim.scenes import furniture
from mirage_sim.scenes.furniture import Item
from mirage_sim.scenes.layout import Layout, Room
from mirage_sim.scenes.mesh import Mesh
from mirage_sim.scenes.obstacles import Obstacles, free_space_grid, wall_boxes
from mirage_sim.scenes.textures import RoomColours

WALK_CLEARANCE = 0.42
DOOR_CLEARANCE = 0.95


@dataclass
class Furnished:
    """Everything placed in a flat."""

    meshes: list[tuple[str, Mesh]] = field(default_factory=list)
    """Name and mesh in world coordinates of each thing."""
    footprints: list[list[float]] = field(default_factory=list)
    """Obstacle rows: centre x, centre y, half width, half depth, yaw."""
    pictures: list[tuple[int, int, float, float, float, float]] = field(default_factory=list)
    """Room, wall, centre along the wall, centre height, width and height of each picture."""
    rugs: list[tuple[int, float, float, float, float]] = field(default_factory=list)
    """Room, centre x, centre y, width and depth of each rug."""


class _Placer:
    """Tries places for items and keeps those that leave the flat walkable."""

    def __init__(self, layout: Layout, rng: np.random.Generator) -> None:
        self.layout = layout
        self.rng = rng
        self.result = Furnished()
        grid = free_space_grid(layout, Obstacles(np.asarray(wall_boxes(layout))), 0.0, 0.1)
        self.grid = grid
        self.centres = grid.centres().reshape(-1, 2)
        self.clearance = grid.clearance.copy()
        self.door_centres = np.array([[sum(d.x) / 2, sum(d.y) / 2] for d in layout.doorways]).reshape(-1, 2)
        self.doors = [grid.index(point) for point in self.door_centres]
        self.on_walls: dict[tuple[int, int], list[tuple[float, float, float]]] = {}

    def _walkable(self, clearance: NDArray[np.float64]) -> bool:
        labels, _ = ndimage.label(clearance > WALK_CLEARANCE)
        ids = {int(labels[cell]) for cell in self.doors}
        if len(ids) != 1 or 0 in ids:
            return False
        return int((labels == ids.pop()).sum()) >= 0.9 * int((clearance > WALK_CLEARANCE).sum())

    def put(self, item: Item, x: float, y: float, yaw: float, gap: float = 0.04) -> bool:
        """Place an item with its back centre at (x, y) unless it overlaps or blocks the way."""
        c, s = math.cos(yaw), math.sin(yaw)
        cx, cy = x - s * item.depth / 2, y + c * item.depth / 2
        row = [cx, cy, item.width / 2, item.depth / 2, yaw]
        own = Obstacles(np.asarray([row]))
        if self.layout.doorways and float(own.distance(self.door_centres).min()) < DOOR_CLEARANCE:
            return False
        taken = Obstacles(np.asarray([[cx, cy, item.width / 2 + gap, item.depth / 2 + gap, yaw]]))
        corners = self._probe(row)
        if self.result.footprints:
            others = Obstacles(np.asarray(self.result.footprints))
            if float(others.distance(corners).min()) <= gap:
                return False
            probes = np.concatenate([self._probe(f) for f in self.result.footprints])
            if float(taken.distance(probes).min()) <= 0:
                return False
        rooms = self.layout.rooms
        if not any(all(room.contains(x, y) for x, y in corners.tolist()) for room in rooms):
            return False
        away = own.distance(self.centres).reshape(self.clearance.shape)
        clearance = np.minimum(self.clearance, away)
        if not self._walkable(clearance):
            return False
        self.clearance = clearance
        self.result.footprints.append(row)
        self.result.meshes.append((item.name, item.mesh.moved(yaw, (x, y, 0.0))))
        return True

    @staticmethod
    def _probe(row: list[float]) -> NDArray[np.float64]:
        """Corners, edge middles and centre of a footprint, [9, 2]."""
        cx, cy, hx, hy, yaw = row
        c, s = math.cos(yaw), math.sin(yaw)
        grid = np.array([[i, j] for i in (-1, 0, 1) for j in (-1, 0, 1)]) * np.array([hx, hy])
        probes: NDArray[np.float64] = grid @ np.array([[c, s], [-s, c]]) + np.array([cx, cy])
        return probes

    def against_wall(self, index: int, item: Item, tries: int = 8) -> bool:
        """Place an item with its back to some wall of a room, clear of doors and (when tall) of windows."""
        room = self.layout.rooms[index]
        for _ in range(tries):
            wall = int(self.rng.integers(4))
            length = room.wall_length(wall)
            if length < item.width + 0.1:
                continue
            low, high = item.width / 2 + 0.03, length - item.width / 2 - 0.03
            u = float(self.rng.uniform(low, high))
            if self.rng.random() < 0.4:
                u = low if self.rng.random() < 0.5 else high
            u0, u1 = u - item.width / 2, u + item.width / 2
            blocked = any(
                o.u0 - 0.15 < u1 and u0 < o.u1 + 0.15 and (o.kind == "door" or item.height > o.v0)
                for o in room.openings[wall]
            )
            x, y = room.wall_point(wall, u, 0.015)
            if not blocked and self.put(item, x, y, room.wall_yaw(wall)):
                self.on_walls.setdefault((index, wall), []).append((u0, u1, item.height))
                return True
        return False

    def middle(self, index: int, colours: RoomColours) -> None:
        """Furnish the middle of a room: a rug, and a table where there is space for one."""
        room, rng = self.layout.rooms[index], self.rng
        w, d = room.size
        cx, cy = room.centre
        yaw = 0.0 if w >= d else math.pi / 2
        if room.kind in ("living", "bedroom", "study") and rng.random() < 0.75:
            long = min(max(w, d) - 1.6, float(rng.uniform(1.6, 2.4)))
            short = min(min(w, d) - 1.4, float(rng.uniform(1.1, 1.7)))
            size = (long, short) if w >= d else (short, long)
            self.result.rugs.append((index, cx, cy, size[0], size[1]))
        if room.kind == "kitchen" or (room.kind == "living" and rng.random() < 0.3):
            item = furniture.table(rng, colours)
        elif room.kind == "living":
            item = furniture.coffee_table(rng, colours)
        else:
            return
        for _ in range(6):
            x, y = cx + float(rng.uniform(-0.25, 0.25)) * w, cy + float(rng.uniform(-0.25, 0.25)) * d
            bx, by = x + math.sin(yaw) * item.depth / 2, y - math.cos(yaw) * item.depth / 2
            if self.put(item, bx, by, yaw):
                if item.name == "table":
                    self._chairs(x, y, yaw, item, colours)
                return

    def _chairs(self, x: float, y: float, yaw: float, table: Item, colours: RoomColours) -> None:
        for turn in (0, 2, 1, 3):
            face = yaw + turn * math.pi / 2
            reach = (table.depth if turn % 2 == 0 else table.width) / 2
            item = furniture.chair(self.rng, colours)
            away = reach + item.depth + 0.03
            # A chair faces the table, so its back lies one depth beyond the table's edge.
            self.put(item, x + math.sin(face) * away, y - math.cos(face) * away, face, gap=0.01)

    def pictures(self, index: int) -> None:
        """Hang pictures where a wall is bare."""
        room, rng = self.layout.rooms[index], self.rng
        for wall in range(4):
            length = room.wall_length(wall)
            for _ in range(3):
                w, h = float(rng.uniform(0.5, 1.1)), float(rng.uniform(0.5, 0.8))
                if length < w + 0.4 or rng.random() < 0.25:
                    continue
                u = float(rng.uniform(w / 2 + 0.2, length - w / 2 - 0.2))
                z = float(rng.uniform(1.5, 1.65))
                taken = [(o.u0, o.u1, math.inf) for o in room.openings[wall]]
                taken += self.on_walls.get((index, wall), [])
                left, right, bottom = u - w / 2 - 0.2, u + w / 2 + 0.2, z - h / 2 - 0.1
                if any(u0 < right and left < u1 and top > bottom for u0, u1, top in taken):
                    continue
                self.result.pictures.append((index, wall, u, z, w, h))
                break


def furnish(layout: Layout, colours: list[RoomColours], rng: np.random.Generator) -> Furnished:
    """Fill a flat with furniture.

    Args:
        layout: The flat.
        colours: Colours per room.
        rng: Source of every choice.

    Returns:
        What stands where; all doorways stay reachable for a disc of radius `WALK_CLEARANCE`.

    Source: ours.
    """
    placer = _Placer(layout, rng)
    for index, room in enumerate(layout.rooms):
        _furnish_room(placer, index, room, colours[index])
    return placer.result


def _furnish_room(placer: _Placer, index: int, room: Room, colours: RoomColours) -> None:
    fixed, drawn = furniture.AGAINST_WALL[room.kind]
    for builder in fixed:
        placer.against_wall(index, builder(placer.rng, colours), tries=14)
    placer.middle(index, colours)
    area = room.size[0] * room.size[1]
    for pick in placer.rng.permutation(len(drawn))[: 3 + int(area / 6)].tolist():
        placer.against_wall(index, drawn[pick](placer.rng, colours), tries=12)
    placer.pictures(index)
