"""Furniture built by code from boxes, cylinders and ellipsoids.

Every builder returns an `Item` in its own frame: x to the side and centred, y = 0 at its back and growing to
its front, z up from the floor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mirage_sim.scenes.mesh import Colour, Mesh
from mirage_sim.scenes.textures import RoomColours, dim, hsv

Rng = np.random.Generator


@dataclass(frozen=True)
class Item:
    """One piece of furniture."""

    name: str
    """What it is."""
    mesh: Mesh
    """Its quads in its own frame."""
    width: float
    """Extent in x, metres."""
    depth: float
    """Extent in y, metres."""
    height: float
    """Extent in z, metres."""


def _any(rng: Rng, low: float, high: float) -> float:
    return float(rng.uniform(low, high))


def _bright(rng: Rng) -> Colour:
    return hsv(float(rng.random()), _any(rng, 0.5, 0.85), _any(rng, 0.55, 0.95))


def _legs(mesh: Mesh, width: float, depth: float, height: float, thick: float, colour: Colour) -> None:
    for x in (-width / 2 + thick / 2, width / 2 - thick / 2):
        for y in (thick / 2, depth - thick / 2):
            mesh.block((x - thick / 2, x + thick / 2), (y - thick / 2, y + thick / 2), (0, height), colour)


def sofa(rng: Rng, colours: RoomColours) -> Item:
    """A sofa with arms and cushions."""
    mesh, w, d = Mesh(), _any(rng, 1.5, 2.1), 0.85
    cloth = colours.feature
    mesh.block((-w / 2, w / 2), (0, d), (0.08, 0.3), dim(cloth, 0.8))
    mesh.block((-w / 2, w / 2), (0, 0.22), (0.3, 0.82), cloth)
    for side in (-1, 1):
        ends = sorted((side * w / 2, side * (w / 2 - 0.18)))
        mesh.block((ends[0], ends[1]), (0.22, d), (0.3, 0.58), cloth)
    seats = 2 if w < 1.8 else 3
    span = (w - 0.36) / seats
    for i in range(seats):
        x0 = -w / 2 + 0.18 + i * span
        mesh.block((x0 + 0.015, x0 + span - 0.015), (0.22, d + 0.02), (0.3, 0.45), dim(cloth, 1.12))
    for x in (-w / 2 + 0.4, w / 2 - 0.4):
        mesh.block((x - 0.19, x + 0.19), (0.22, 0.36), (0.45, 0.78), colours.accent)
    return Item("sofa", mesh, w, d + 0.02, 0.82)


def armchair(rng: Rng, colours: RoomColours) -> Item:
    """An armchair."""
    mesh, w, d, cloth = Mesh(), 0.8, 0.8, colours.accent
    _legs(mesh, w, d, 0.15, 0.07, colours.wood)
    mesh.block((-w / 2, w / 2), (0, d), (0.15, 0.42), cloth)
    mesh.block((-w / 2, w / 2), (0, 0.18), (0.42, _any(rng, 0.8, 1.0)), cloth)
    mesh.block((-w / 2, -w / 2 + 0.15), (0.18, d), (0.42, 0.6), dim(cloth, 0.85))
    mesh.block((w / 2 - 0.15, w / 2), (0.18, d), (0.42, 0.6), dim(cloth, 0.85))
    return Item("armchair", mesh, w, d, 1.0)


def bed(rng: Rng, colours: RoomColours) -> Item:
    """A bed with a headboard, blanket and pillows."""
    mesh, w, d = Mesh(), float(rng.choice([1.0, 1.5, 1.7])), 2.05
    mesh.block((-w / 2, w / 2), (0, 0.08), (0, _any(rng, 0.85, 1.2)), colours.wood)
    mesh.block((-w / 2, w / 2), (0.08, d), (0.1, 0.3), dim(colours.wood, 0.85))
    mesh.block((-w / 2 + 0.03, w / 2 - 0.03), (0.08, d - 0.03), (0.3, 0.5), (0.93, 0.92, 0.9))
    mesh.block((-w / 2 + 0.01, w / 2 - 0.01), (0.75, d - 0.01), (0.28, 0.54), colours.feature)
    mesh.block((-w / 2, w / 2), (1.45, 1.8), (0.27, 0.56), colours.accent)
    pillows = 1 if w < 1.2 else 2
    for i in range(pillows):
        x = (i + 0.5) * w / pillows - w / 2
        mesh.block((x - 0.28, x + 0.28), (0.14, 0.55), (0.5, 0.62), (0.97, 0.96, 0.93))
    return Item("bed", mesh, w, d, 1.2)


def table(rng: Rng, colours: RoomColours) -> Item:
    """A dining table, square-legged or round, with something on it."""
    mesh = Mesh()
    if rng.random() < 0.4:
        w = d = _any(rng, 0.95, 1.2)
        mesh.cylinder((0, d / 2), w / 2, (0.7, 0.76), colours.wood, sides=14)
        mesh.cylinder((0, d / 2), 0.07, (0.04, 0.7), dim(colours.wood, 0.7), sides=8)
        mesh.cylinder((0, d / 2), 0.3, (0, 0.04), dim(colours.wood, 0.7))
    else:
        w, d = _any(rng, 1.2, 1.7), _any(rng, 0.8, 0.95)
        _legs(mesh, w, d, 0.7, 0.08, dim(colours.wood, 0.8))
        mesh.block((-w / 2, w / 2), (0, d), (0.7, 0.76), colours.wood)
    mesh.lathe((0, d / 2), [(0, 0.76), (0.09, 0.76), (0.16, 0.88), (0, 0.85)], colours.accent)
    if rng.random() < 0.6:
        mesh.ball((0, d / 2, 0.89), 0.08, 0.14, _bright(rng))
    return Item("table", mesh, w, d, 0.9)


def chair(rng: Rng, colours: RoomColours) -> Item:
    """A chair with a back."""
    mesh, w, d = Mesh(), 0.44, 0.46
    colour = colours.accent
    _legs(mesh, w, d, 0.43, 0.06, dim(colours.wood, 0.85))
    mesh.block((-w / 2, w / 2), (0, d), (0.43, 0.49), colour)
    mesh.block((-w / 2, w / 2), (0, 0.05), (0.49, 0.92), colour)
    return Item("chair", mesh, w, d, 0.92)


def coffee_table(rng: Rng, colours: RoomColours) -> Item:
    """A low table with a vase or books."""
    mesh, w, d = Mesh(), _any(rng, 0.8, 1.1), 0.55
    _legs(mesh, w, d, 0.36, 0.07, dim(colours.wood, 0.8))
    mesh.block((-w / 2, w / 2), (0, d), (0.36, 0.42), colours.wood)
    mesh.block((-w / 2 + 0.1, -w / 2 + 0.4), (0.12, 0.36), (0.42, 0.49), _bright(rng))
    x = w / 4
    mesh.lathe(
        (x, d / 2), [(0, 0.42), (0.07, 0.42), (0.1, 0.55), (0.04, 0.66), (0, 0.66)], _bright(rng), sides=8
    )
    return Item("coffee table", mesh, w, d, 0.66)


def bookshelf(rng: Rng, colours: RoomColours) -> Item:
    """A bookshelf with thick books and boxes."""
    mesh, w, d = Mesh(), _any(rng, 0.8, 1.5), 0.32
    shelves = int(rng.integers(3, 6))
    h = 0.12 + shelves * 0.38
    wood = colours.wood
    mesh.block((-w / 2, w / 2), (0, 0.03), (0, h), dim(wood, 0.6))
    mesh.block((-w / 2, -w / 2 + 0.05), (0.03, d), (0, h), wood)
    mesh.block((w / 2 - 0.05, w / 2), (0.03, d), (0, h), wood)
    for i in range(shelves + 1):
        z = 0.08 + i * 0.38
        mesh.block((-w / 2 + 0.05, w / 2 - 0.05), (0.03, d), (z - 0.04, z), wood)
        x = -w / 2 + 0.06
        while i < shelves and x < w / 2 - 0.18:
            thick, tall = _any(rng, 0.08, 0.15), _any(rng, 0.2, 0.31)
            if rng.random() < 0.78:
                mesh.block((x, x + thick), (0.05, d - 0.06), (z, z + tall), _bright(rng))
            x += thick + 0.005
    return Item("bookshelf", mesh, w, d, h)


def wardrobe(rng: Rng, colours: RoomColours) -> Item:
    """A tall wardrobe with two doors."""
    mesh, w, d, h = Mesh(), _any(rng, 1.0, 1.5), 0.58, _any(rng, 1.85, 2.15)
    body = colours.wood if rng.random() < 0.6 else (0.9, 0.89, 0.86)
    mesh.block((-w / 2, w / 2), (0, d), (0.06, h), dim(body, 0.82))
    for x0, x1, grip in ((-w / 2 + 0.04, -0.02, -0.1), (0.02, w / 2 - 0.04, 0.1)):
        mesh.block((x0, x1), (d, d + 0.03), (0.12, h - 0.06), body)
        mesh.block((grip - 0.025, grip + 0.025), (d + 0.03, d + 0.06), (0.9, 1.2), dim(body, 0.4))
    return Item("wardrobe", mesh, w, d + 0.06, h)


def dresser(rng: Rng, colours: RoomColours) -> Item:
    """A chest of drawers with a lamp on it."""
    mesh, w, d, h = Mesh(), _any(rng, 0.8, 1.2), 0.45, _any(rng, 0.75, 0.95)
    mesh.block((-w / 2, w / 2), (0, d), (0.05, h), dim(colours.wood, 0.8))
    for i in range(3):
        z0 = 0.1 + i * (h - 0.12) / 3
        mesh.block(
            (-w / 2 + 0.04, w / 2 - 0.04), (d, d + 0.02), (z0, z0 + (h - 0.12) / 3 - 0.05), colours.wood
        )
    mesh.cylinder((-w / 4, d / 2), 0.04, (h, h + 0.2), dim(colours.accent, 0.6), sides=6)
    mesh.lathe((-w / 4, d / 2), [(0.17, h + 0.2), (0.1, h + 0.45), (0, h + 0.45)], (1.0, 0.93, 0.72))
    return Item("dresser", mesh, w, d + 0.02, h + 0.45)


def nightstand(rng: Rng, colours: RoomColours) -> Item:
    """A small cabinet with a lamp."""
    mesh, w = Mesh(), 0.45
    mesh.block((-w / 2, w / 2), (0, 0.4), (0.06, 0.5), colours.wood)
    mesh.block((-w / 2 + 0.04, w / 2 - 0.04), (0.4, 0.42), (0.28, 0.44), dim(colours.wood, 1.2))
    mesh.cylinder((0, 0.2), 0.04, (0.5, 0.68), dim(colours.accent, 0.6), sides=6)
    mesh.lathe((0, 0.2), [(0.15, 0.68), (0.09, 0.88), (0, 0.88)], (1.0, 0.93, 0.72), sides=8)
    return Item("nightstand", mesh, w, 0.42, 0.88)


def desk(rng: Rng, colours: RoomColours) -> Item:
    """A desk with a screen and drawers."""
    mesh, w, d = Mesh(), _any(rng, 1.1, 1.5), 0.65
    mesh.block((-w / 2, w / 2), (0, d), (0.7, 0.75), colours.wood)
    mesh.block((-w / 2, -w / 2 + 0.4), (0.02, d - 0.04), (0.05, 0.7), dim(colours.wood, 0.8))
    mesh.block((w / 2 - 0.06, w / 2), (0.02, d - 0.04), (0, 0.7), dim(colours.wood, 0.8))
    mesh.block((-0.08, 0.08), (0.15, 0.3), (0.75, 0.82), (0.2, 0.2, 0.22))
    mesh.block((-0.33, 0.33), (0.16, 0.2), (0.82, 1.22), (0.12, 0.12, 0.14))
    mesh.block((-0.29, 0.29), (0.2, 0.205), (0.86, 1.18), _bright(rng))
    return Item("desk", mesh, w, d, 1.22)


def tv_stand(rng: Rng, colours: RoomColours) -> Item:
    """A low cabinet with a television."""
    mesh, w, d = Mesh(), _any(rng, 1.3, 1.8), 0.42
    mesh.block((-w / 2, w / 2), (0, d), (0.05, 0.45), colours.wood)
    for x in (-w / 4, w / 4):
        mesh.block((x - w / 4 + 0.04, x + w / 4 - 0.04), (d, d + 0.02), (0.1, 0.4), dim(colours.wood, 1.15))
    mesh.block((-0.15, 0.15), (0.12, 0.28), (0.45, 0.5), (0.15, 0.15, 0.16))
    mesh.block((-0.55, 0.55), (0.17, 0.23), (0.5, 1.15), (0.1, 0.1, 0.12))
    mesh.block((-0.5, 0.5), (0.23, 0.235), (0.55, 1.1), (0.2, 0.25, 0.32))
    return Item("tv", mesh, w, d + 0.02, 1.15)


def counter(rng: Rng, colours: RoomColours) -> Item:
    """A kitchen counter with a hob and wall cupboards above."""
    mesh, w, d = Mesh(), _any(rng, 1.6, 2.3), 0.62
    front = colours.feature if rng.random() < 0.6 else (0.9, 0.9, 0.88)
    mesh.block((-w / 2, w / 2), (0, d - 0.04), (0.1, 0.86), dim(front, 0.8))
    mesh.block((-w / 2, w / 2), (0, d), (0.86, 0.92), (0.32, 0.31, 0.3))
    doors = max(2, round(w / 0.55))
    for i in range(doors):
        x = -w / 2 + i * w / doors
        mesh.block((x + 0.03, x + w / doors - 0.03), (d - 0.04, d - 0.01), (0.14, 0.82), front)
        mesh.block((x + 0.03, x + w / doors - 0.03), (0.34, 0.36), (1.48, 2.04), front)
    mesh.block((-w / 2, w / 2), (0, 0.34), (1.44, 2.08), dim(front, 0.8))
    mesh.block((-w / 4 - 0.28, -w / 4 + 0.28), (0.08, 0.54), (0.92, 0.935), (0.08, 0.08, 0.09))
    mesh.cylinder((w / 4, 0.25), 0.1, (0.92, 1.12), colours.accent)
    return Item("counter", mesh, w, d, 2.08)


def fridge(rng: Rng, colours: RoomColours) -> Item:
    """A fridge with two doors."""
    mesh, w, d, h = Mesh(), 0.62, 0.62, _any(rng, 1.65, 1.9)
    body = (0.88, 0.89, 0.9) if rng.random() < 0.6 else colours.accent
    mesh.block((-w / 2, w / 2), (0, d), (0.04, h), dim(body, 0.85))
    mesh.block((-w / 2 + 0.01, w / 2 - 0.01), (d, d + 0.04), (0.08, 1.05), body)
    mesh.block((-w / 2 + 0.01, w / 2 - 0.01), (d, d + 0.04), (1.1, h - 0.02), body)
    for z in (0.75, 1.15):
        mesh.block((w / 2 - 0.12, w / 2 - 0.07), (d + 0.04, d + 0.08), (z, z + 0.28), (0.3, 0.3, 0.32))
    return Item("fridge", mesh, w, d + 0.08, h)


def floor_lamp(rng: Rng, colours: RoomColours) -> Item:
    """A standing lamp."""
    mesh, h = Mesh(), _any(rng, 1.5, 1.75)
    mesh.cylinder((0, 0.25), 0.15, (0, 0.04), dim(colours.wood, 0.6))
    mesh.cylinder((0, 0.25), 0.03, (0.04, h - 0.3), dim(colours.wood, 0.6), sides=6)
    shade = (1.0, 0.93, 0.7) if rng.random() < 0.6 else colours.accent
    mesh.lathe((0, 0.25), [(0, h - 0.3), (0.24, h - 0.3), (0.15, h), (0, h)], shade)
    return Item("lamp", mesh, 0.48, 0.48, h)


def plant(rng: Rng, colours: RoomColours) -> Item:
    """A potted plant: leaves as a few large ellipsoids."""
    mesh, h = Mesh(), _any(rng, 0.9, 1.7)
    green = hsv(_any(rng, 0.25, 0.4), _any(rng, 0.5, 0.75), _any(rng, 0.4, 0.65))
    pot = _bright(rng) if rng.random() < 0.5 else (0.72, 0.42, 0.3)
    mesh.lathe((0, 0.3), [(0, 0), (0.14, 0), (0.2, 0.36), (0, 0.33)], pot)
    mesh.cylinder((0, 0.3), 0.035, (0.33, h * 0.6), (0.4, 0.28, 0.18), sides=6)
    mesh.ball((0, 0.3, h * 0.75), 0.27, h * 0.5, green)
    for _ in range(2):
        x, y = _any(rng, -0.12, 0.12), _any(rng, 0.2, 0.4)
        mesh.ball((x, y, h * _any(rng, 0.55, 0.9)), 0.18, 0.34, dim(green, _any(rng, 0.75, 1.25)))
    return Item("plant", mesh, 0.58, 0.6, h)


def boxes(rng: Rng, colours: RoomColours) -> Item:
    """A stack of boxes."""
    mesh, w, d = Mesh(), _any(rng, 0.45, 0.65), _any(rng, 0.4, 0.5)
    h = _any(rng, 0.3, 0.45)
    first = (0.72, 0.56, 0.38) if rng.random() < 0.5 else _bright(rng)
    mesh.block((-w / 2, w / 2), (0, d), (0, h), first)
    mesh.block((-0.05, 0.05), (-0.002, d + 0.002), (-0.01, h + 0.004), dim(first, 0.75))
    if rng.random() < 0.6:
        mesh.block((-w / 3, w / 4), (0.05, d - 0.05), (h, h + 0.28), _bright(rng))
    return Item("boxes", mesh, w, d, h + 0.28)


def ottoman(rng: Rng, colours: RoomColours) -> Item:
    """A round, low seat."""
    mesh, r = Mesh(), _any(rng, 0.25, 0.34)
    mesh.cylinder((0, r), r, (0.0, 0.34), colours.feature, sides=12)
    mesh.cylinder((0, r), r * 0.94, (0.34, 0.42), colours.accent, sides=12)
    return Item("ottoman", mesh, 2 * r, 2 * r, 0.42)


Builder = Callable[[Rng, RoomColours], Item]

AGAINST_WALL: dict[str, tuple[tuple[Builder, ...], tuple[Builder, ...]]] = {
    "living": ((sofa, tv_stand), (bookshelf, plant, floor_lamp, armchair, dresser, ottoman)),
    "bedroom": ((bed, nightstand, wardrobe), (dresser, plant, floor_lamp, armchair, boxes)),
    "kitchen": ((counter, fridge), (dresser, bookshelf, plant, boxes)),
    "study": ((desk, bookshelf), (bookshelf, armchair, floor_lamp, plant, boxes, dresser)),
}
"""What stands against the walls by kind of room: always tried, and drawn from."""
