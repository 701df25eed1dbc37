"""Exact 2D collision of a walking disc with oriented boxes, and the free-space grid made from it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.layout import WALL_THICKNESS, Layout

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class FreeSpace:
    """A top view of where a disc may stand."""

    free: NDArray[np.bool_]
    """[rows, columns]; row i, column j is the cell around (origin + (j + 0.5, i + 0.5) · cell)."""
    clearance: Floats
    """[rows, columns] distance from each cell centre to the nearest obstacle, metres."""
    origin: tuple[float, float]
    """World (x, y) of the lower corner of cell (0, 0), metres."""
    cell: float
    """Edge length of a cell, metres."""

    def centres(self) -> Floats:
        """World (x, y) of the cell centres, [rows, columns, 2] metres."""
        rows, columns = self.free.shape
        x = self.origin[0] + (np.arange(columns) + 0.5) * self.cell
        y = self.origin[1] + (np.arange(rows) + 0.5) * self.cell
        return np.stack(np.meshgrid(x, y), -1)

    def index(self, point: Floats) -> tuple[int, int]:
        """Row and column of the cell that holds a point (x, y), clamped to the grid."""
        column, row = np.floor((np.asarray(point)[:2] - self.origin) / self.cell).astype(int)
        rows, columns = self.free.shape
        return int(np.clip(row, 0, rows - 1)), int(np.clip(column, 0, columns - 1))


class Obstacles:
    """Oriented boxes on the floor plan: walls and furniture, each taken as high as the room."""

    def __init__(self, boxes: Floats) -> None:
        """Take the boxes.

        Args:
            boxes: [N, 5] rows of centre x, centre y, half width, half depth (metres) and yaw (radians).
        """
        self._centre = boxes[:, :2]
        self._half = boxes[:, 2:4]
        cos, sin = np.cos(boxes[:, 4]), np.sin(boxes[:, 4])
        self._turn = np.stack([np.stack([cos, -sin], -1), np.stack([sin, cos], -1)], -2)  # [N, 2, 2]

    def _local(self, points: Floats) -> Floats:
        """World points [P, 2] in the frame of every box, [P, N, 2]."""
        local: Floats = np.einsum("pni,nij->pnj", points[:, None] - self._centre, self._turn)
        return local

    def distance(self, points: Floats) -> Floats:
        """Distance from points to the nearest obstacle.

        Args:
            points: [P, 2] metres.

        Returns:
            [P] metres, 0 inside an obstacle.
        """
        gap = np.maximum(np.abs(self._local(points)) - self._half, 0.0)
        nearest: Floats = np.sqrt((gap**2).sum(-1)).min(-1)
        return nearest

    def segment_distance(self, a: Floats, b: Floats) -> float:
        """Distance from the segment between two points to the nearest obstacle.

        The exact minimum: 0 where the segment crosses a box, else the nearest pair of an end and a box or of
        a box corner and the segment.

        Args:
            a: Start (x, y), metres.
            b: End (x, y), metres.

        Returns:
            Metres.
        """
        ends = self._local(np.stack([a, b]))  # [2, N, 2]
        start, step = ends[0], ends[1] - ends[0]
        gap = np.maximum(np.abs(ends) - self._half, 0.0)
        nearest = float(np.sqrt((gap**2).sum(-1)).min())
        still = np.abs(step) < 1e-12
        safe = np.where(still, 1.0, step)
        t0, t1 = (-self._half - start) / safe, (self._half - start) / safe
        outside = np.abs(start) > self._half
        enter = np.where(still, np.where(outside, np.inf, -np.inf), np.minimum(t0, t1)).max(-1)
        leave = np.where(still, np.where(outside, -np.inf, np.inf), np.maximum(t0, t1)).min(-1)
        if bool((np.maximum(enter, 0.0) <= np.minimum(leave, 1.0)).any()):
            return 0.0
        signs = np.array([[1, 1], [1, -1], [-1, 1], [-1, -1]])
        corners = self._half[:, None] * signs - start[:, None]  # [N, 4, 2]
        length = np.maximum((step**2).sum(-1), 1e-18)
        along = np.clip((corners * step[:, None]).sum(-1) / length[:, None], 0.0, 1.0)  # [N, 4]
        miss = corners - along[..., None] * step[:, None]
        return min(nearest, float(np.sqrt((miss**2).sum(-1)).min()))


def box_row(x: tuple[float, float], y: tuple[float, float]) -> list[float]:
    """An axis-aligned obstacle from its extents in metres, as a row for `Obstacles`."""
    return [(x[0] + x[1]) / 2, (y[0] + y[1]) / 2, (x[1] - x[0]) / 2, (y[1] - y[0]) / 2, 0.0]


def wall_boxes(layout: Layout) -> list[list[float]]:
    """Every wall of a flat as obstacles, with gaps where the doorways are."""
    rows = []
    half = WALL_THICKNESS / 2
    for room in layout.rooms:
        for wall in range(4):
            length = room.wall_length(wall)
            doors = sorted((o.u0, o.u1) for o in room.openings[wall] if o.kind == "door")
            start = -half
            for u0, u1 in [*doors, (length + half, length + half)]:
                if u0 > start:
                    near, far = room.wall_point(wall, start), room.wall_point(wall, u0, -half)
                    rows.append(
                        box_row(
                            (min(near[0], far[0]), max(near[0], far[0])),
                            (min(near[1], far[1]), max(near[1], far[1])),
                        )
                    )
                start = u1
    return rows


def free_space_grid(layout: Layout, obstacles: Obstacles, radius: float, cell: float) -> FreeSpace:
    """Where a disc may stand in a flat.

    Args:
        layout: The flat.
        obstacles: Its walls and furniture.
        radius: Radius of the disc, metres.
        cell: Edge length of a cell, metres.

    Returns:
        The grid over the whole flat.
    """
    shape = (int(np.ceil(layout.depth / cell)), int(np.ceil(layout.width / cell)))
    empty = FreeSpace(np.zeros(shape, dtype=bool), np.zeros(shape), (0.0, 0.0), cell)
    centres = empty.centres().reshape(-1, 2)
    clearance = obstacles.distance(centres)
    inside = np.zeros(len(centres), dtype=bool)
    spans = [(room.x, room.y) for room in layout.rooms] + [(door.x, door.y) for door in layout.doorways]
    for x, y in spans:
        low, high = np.array([x[0], y[0]]), np.array([x[1], y[1]])
        inside |= ((centres >= low) & (centres <= high)).all(axis=1)
    clearance = np.where(inside, clearance, 0.0).reshape(shape)
    return FreeSpace(clearance >= radius if radius > 0 else clearance > 0, clearance, (0.0, 0.0), cell)
