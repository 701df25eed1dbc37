"""The shell of a flat as textured meshes: walls with holes, floors, ceilings, frames, rugs, pictures."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.furnish import Furnished
from mirage_sim.scenes.layout import WALL_THICKNESS, Layout, Room
from mirage_sim.scenes.mesh import Colour, Floats, Mesh, shade
from mirage_sim.scenes.textures import (
    RoomColours,
    ceiling_image,
    dim,
    floor_image,
    picture_image,
    rug_image,
    shade_floor,
    to_uint8,
    wall_image,
)

WALL_STYLES = ("plain", "plain", "stripes", "wainscot", "brick", "band", "panels")
FLOOR_STYLES = ("planks", "planks", "checker", "tiles", "carpet")
_SKIN = WALL_THICKNESS / 2


@dataclass(frozen=True)
class Painted:
    """A body with a texture of its own."""

    name: str
    """What it is."""
    vertices: Floats
    """[4 * quads, 3] metres, counter-clockwise seen from the front."""
    uvs: Floats
    """[4 * quads, 2] in [0, 1], v upwards."""
    image: NDArray[np.uint8]
    """[rows, columns, 3]."""


def _cells(room: Room, wall: int, height: float) -> list[tuple[float, float, float, float]]:
    """A wall without its openings, cut along one common grid so that no two pieces meet in a T."""
    length, openings = room.wall_length(wall), room.openings[wall]
    us = sorted({0.0, length, *(u for o in openings for u in (o.u0, o.u1))})
    vs = sorted({-0.02, height + 0.02, *(v for o in openings for v in (o.v0, o.v1) if v > 0)})
    cells = []
    for u0, u1 in itertools.pairwise(us):
        for v0, v1 in itertools.pairwise(vs):
            u, v = (u0 + u1) / 2, (v0 + v1) / 2
            if not any(o.u0 < u < o.u1 and o.v0 - 0.03 < v < o.v1 for o in openings):
                cells.append((u0, u1, v0, v1))
    return cells


def _walls(rng: np.random.Generator, room: Room, height: float, colours: RoomColours) -> Painted:
    """All four walls of a room as one body; their pictures are stacked in one texture."""
    style = WALL_STYLES[int(rng.integers(len(WALL_STYLES)))]
    feature = int(rng.integers(8))
    normals = np.array([[0, 1, 0], [-1, 0, 0], [0, -1, 0], [1, 0, 0]], dtype=np.float64)
    images = [
        to_uint8(
            wall_image(
                rng,
                "feature" if wall == feature else style,
                room.wall_length(wall),
                height,
                colours,
                float(shade(normals[wall])) * 1.04,
            )
        )
        for wall in range(4)
    ]
    rows, columns = images[0].shape[0], max(image.shape[1] for image in images)
    sheet = np.zeros((4 * rows, columns, 3), dtype=np.uint8)
    vertices, uvs = [], []
    for wall in range(4):
        width = images[wall].shape[1]
        sheet[wall * rows : (wall + 1) * rows, :width] = images[wall]
        for u0, u1, v0, v1 in _cells(room, wall, height):
            for u, v in ((u0, v0), (u1, v0), (u1, v1), (u0, v1)):
                x, y = room.wall_point(wall, u)
                vertices.append((x, y, v))
                inside = min(max(v / height, 0.004), 0.996)
                across = min(max(u / room.wall_length(wall) * width, 0.3), width - 0.3) / columns
                uvs.append((across, 1 - (wall + 1 - inside) / 4))
    return Painted("wall", np.array(vertices), np.array(uvs), sheet)


def _sheet(
    name: str, x: tuple[float, float], y: tuple[float, float], z: float, up: bool, image: NDArray[np.uint8]
) -> Painted:
    """A horizontal rectangle whose image has +x to the right and +y up."""
    corners = [(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])]
    uvs = [(0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0)]
    order = [0, 1, 2, 3] if up else [0, 3, 2, 1]
    inner = np.clip(np.array([uvs[i] for i in order]), 0.001, 0.999)
    vertices = np.array([(*corners[i], z) for i in order])
    return Painted(name, vertices, inner, image)


def _floor(
    rng: np.random.Generator, layout: Layout, index: int, colours: RoomColours, placed: Furnished
) -> Painted:
    room = layout.rooms[index]
    x, y = (room.x[0] - _SKIN, room.x[1] + _SKIN), (room.y[0] - _SKIN, room.y[1] + _SKIN)
    width, depth = x[1] - x[0], y[1] - y[0]
    shadows = [
        (f[0] - x[0], f[1] - y[0], f[2], f[3], f[4]) for f in placed.footprints if room.contains(f[0], f[1])
    ]
    patches = []
    for wall in range(4):
        for opening in (o for o in room.openings[wall] if o.kind == "window"):
            a, b = room.wall_point(wall, opening.u0, 0.5), room.wall_point(wall, opening.u1, 1.5)
            patches.append(
                (
                    min(a[0], b[0]) - x[0],
                    max(a[0], b[0]) - x[0],
                    min(a[1], b[1]) - y[0],
                    max(a[1], b[1]) - y[0],
                )
            )
    style = FLOOR_STYLES[int(rng.integers(len(FLOOR_STYLES)))]
    image = shade_floor(floor_image(rng, style, width, depth, colours), width, depth, shadows, patches)
    return _sheet("floor", x, y, 0.0, True, to_uint8(image))


def _opening_frames(
    rng: np.random.Generator, layout: Layout, colours: list[RoomColours]
) -> tuple[Mesh, Mesh]:
    """Reveals and frames of all doorways, and of all windows with their curtains."""
    doors, windows = Mesh(), Mesh()
    for index, room in enumerate(layout.rooms):
        trim = colours[index].trim
        curtains = bool(rng.random() < 0.5)
        for wall in range(4):
            # Local frame: x against the wall's u, y into the room, z up.
            yaw = room.wall_yaw(wall)
            for o in room.openings[wall]:
                x, y = room.wall_point(wall, (o.u0 + o.u1) / 2)
                half = (o.u1 - o.u0) / 2
                local = Mesh()
                skin = _SKIN if o.kind == "door" else WALL_THICKNESS
                low = o.v0 - 0.06 if o.kind == "window" else -0.02
                for side in (-1, 1):
                    xs = sorted((side * half, side * (half + 0.09)))
                    local.block((xs[0], xs[1]), (-skin, 0.025), (low, o.v1 + 0.09), trim)
                local.block((-half, half), (-skin, 0.025), (o.v1, o.v1 + 0.09), trim)
                if o.kind == "window":
                    local.block((-half - 0.09, half + 0.09), (-skin, 0.07), (o.v0 - 0.06, o.v0), trim)
                    _sash(local, half, o.v0, o.v1, dim(trim, 0.95))
                    if curtains:
                        _curtains(local, half, o.v0, o.v1, colours[index].accent)
                (doors if o.kind == "door" else windows).merge(local.moved(yaw, (x, y, 0.0)))
    return doors, windows


def _sash(mesh: Mesh, half: float, v0: float, v1: float, colour: Colour) -> None:
    depth = (-WALL_THICKNESS + 0.02, -WALL_THICKNESS + 0.07)
    bars = [(-half, -half + 0.07), (half - 0.07, half)]
    if half > 0.45:
        bars.append((-0.035, 0.035))
    for x0, x1 in bars:
        mesh.block((x0, x1), depth, (v0, v1), colour)
    for z0, z1 in ((v0, v0 + 0.07), (v1 - 0.07, v1)):
        mesh.block((-half, half), depth, (z0, z1), colour)


def _curtains(mesh: Mesh, half: float, v0: float, v1: float, colour: Colour) -> None:
    """A rod and two bunched curtains whose folds alternate in tone and depth."""
    mesh.block((-half - 0.14, half + 0.14), (0.06, 0.09), (v1 + 0.1, v1 + 0.14), (0.3, 0.27, 0.24))
    for side in (-1, 1):
        for fold in range(3):
            start = half + 0.1 - 0.14 * fold
            xs = sorted((side * start, side * (start - 0.14)))
            front = 0.12 if fold % 2 else 0.1
            mesh.block(
                (xs[0], xs[1]), (0.05, front), (v0 + 0.01, v1 + 0.1), dim(colour, 0.8 if fold % 2 else 1.0)
            )


def _pictures(rng: np.random.Generator, layout: Layout, placed: Furnished) -> tuple[Mesh, list[Painted]]:
    frames, canvases = Mesh(), []
    for index, wall, u, z, w, h in placed.pictures:
        room = layout.rooms[index]
        x, y = room.wall_point(wall, u)
        tone = float(rng.choice([0.12, 0.35, 0.9]))
        frame = Mesh()
        frame.block((-w / 2, w / 2), (0.0, 0.03), (z - h / 2, z + h / 2), (tone, tone * 0.9, tone * 0.8))
        frames.merge(frame.moved(room.wall_yaw(wall), (x, y, 0.0)))
        corners = []
        for du, dz in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            px, py = room.wall_point(wall, u + du * (w / 2 - 0.05), 0.04)
            corners.append((px, py, z + dz * (h / 2 - 0.05)))
        a, b = room.wall_point(wall, u), room.wall_point(wall, u, 1.0)
        normal = np.array([b[0] - a[0], b[1] - a[1], 0.0])
        uvs = np.array([(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)])
        image = to_uint8(picture_image(rng, float(shade(normal))))
        canvases.append(Painted("picture", np.array(corners), uvs, image))
    return frames, canvases


def build_shell(
    layout: Layout, colours: list[RoomColours], placed: Furnished, rng: np.random.Generator
) -> tuple[list[Painted], list[tuple[str, Mesh]]]:
    """Build everything of a flat that is not furniture.

    Args:
        layout: The flat.
        colours: Colours per room.
        placed: Furniture, for its shadows, rugs and pictures.
        rng: Source of the painted details.

    Returns:
        Bodies with their own textures, and named meshes that use the palette.
    """
    painted: list[Painted] = []
    lamps = Mesh()
    for index, room in enumerate(layout.rooms):
        painted.append(_walls(rng, room, layout.height, colours[index]))
        painted.append(_floor(rng, layout, index, colours[index], placed))
        x, y = (room.x[0] - _SKIN, room.x[1] + _SKIN), (room.y[0] - _SKIN, room.y[1] + _SKIN)
        lamp = bool(rng.random() < 0.8)
        ceiling = ceiling_image(x[1] - x[0], y[1] - y[0], colours[index], lamp)
        painted.append(_sheet("ceiling", x, y, layout.height, False, to_uint8(ceiling)))
        if lamp:
            drop = layout.height - float(rng.uniform(0.3, 0.5))
            cx, cy = room.centre
            lamps.cylinder((cx, cy), 0.02, (drop, layout.height), (0.25, 0.25, 0.25), sides=4)
            if rng.random() < 0.5:
                lamps.ball((cx, cy, drop), 0.17, 0.3, (1.0, 0.96, 0.82))
            else:
                profile = [(0.0, drop + 0.02), (0.24, drop - 0.02), (0.1, drop + 0.2), (0.0, drop + 0.2)]
                lamps.lathe((cx, cy), profile, colours[index].accent)
    rugs = Mesh()
    for index, cx, cy, w, d in placed.rugs:
        image = rug_image(rng, w, d, colours[index])
        shadows = [
            (f[0] - cx + w / 2, f[1] - cy + d / 2, f[2], f[3], f[4])
            for f in placed.footprints
            if math.hypot(f[0] - cx, f[1] - cy) < 3.0
        ]
        lit = shade_floor(image, w, d, shadows, [])
        x, y = (cx - w / 2, cx + w / 2), (cy - d / 2, cy + d / 2)
        painted.append(_sheet("rug", x, y, 0.02, True, to_uint8(lit)))
        rugs.block(x, y, (-0.01, 0.018), dim(colours[index].accent, 0.6))
    doors, windows = _opening_frames(rng, layout, colours)
    frames, canvases = _pictures(rng, layout, placed)
    painted.extend(canvases)
    meshes = [
        ("door frame", doors),
        ("window frame", windows),
        ("lamp", lamps),
        ("rug", rugs),
        ("picture", frames),
    ]
    return painted, [(name, mesh) for name, mesh in meshes if mesh.vertices]
