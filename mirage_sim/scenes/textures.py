"""Painted surfaces: walls, floors, rugs and pictures as small images, with soft light baked in.

Features are kept large (a texel is 2.5 cm, a feature rarely under 10 cm), because the renderer samples the
nearest texel and fine patterns would flicker.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.mesh import Colour

Image = NDArray[np.float64]
TEXEL = 0.025


@dataclass(frozen=True)
class RoomColours:
    """The colours of one room, RGB in [0, 1]."""

    wall: Colour
    """Main wall colour."""
    second: Colour
    """Second wall colour, for patterns and the lower half."""
    feature: Colour
    """Colour of the feature wall and of soft furniture."""
    accent: Colour
    """Colour that stands out, for cushions, chairs and lamps."""
    wood: Colour
    """Furniture wood."""
    floor: Colour
    """Main floor colour."""
    floor_second: Colour
    """Second floor colour."""
    trim: Colour
    """Skirting, coving and frames."""


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """RGB in [0, 1] of a hue (any real number, one turn per unit), saturation and value."""
    return colorsys.hsv_to_rgb(hue % 1.0, min(max(saturation, 0.0), 1.0), min(max(value, 0.0), 1.0))


def dim(colour: Colour, factor: float) -> Colour:
    """A colour scaled in brightness, clipped to [0, 1]."""
    return (min(1.0, colour[0] * factor), min(1.0, colour[1] * factor), min(1.0, colour[2] * factor))


def room_colours(rng: np.random.Generator, hue: float) -> RoomColours:
    """Draw a harmonious set of colours around a hue.

    Args:
        rng: Source of every choice.
        hue: Hue of the walls, in turns.
    """

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    strength = float(rng.choice([0.12, 0.28, 0.42]))
    wall = hsv(hue, strength * between(0.8, 1.2), between(0.82, 0.97))
    second = hsv(hue + between(-0.06, 0.06), strength + 0.18, between(0.55, 0.75))
    feature = hsv(hue + float(rng.choice([0.0, 0.5, 0.33])), between(0.4, 0.65), between(0.45, 0.8))
    accent = hsv(hue + 0.5 + between(-0.15, 0.15), between(0.6, 0.85), between(0.65, 0.95))
    wood = hsv(between(0.05, 0.1), between(0.35, 0.65), between(0.38, 0.8))
    pick = rng.random()
    if pick < 0.5:
        tone, rich, value = between(0.05, 0.1), between(0.3, 0.55), between(0.45, 0.8)
    elif pick < 0.75:
        tone, rich, value = hue + 0.5, between(0.15, 0.4), between(0.45, 0.75)
    else:
        tone, rich, value = hue, 0.06, between(0.55, 0.85)
    trim = (0.94, 0.93, 0.9) if rng.random() < 0.7 else dim(wood, 0.9)
    floor, floor_second = hsv(tone, rich, value), hsv(tone, rich * 0.8, value * 0.72)
    return RoomColours(wall, second, feature, accent, wood, floor, floor_second, trim)


def _canvas(width: float, height: float, colour: Colour) -> tuple[Image, Image, Image]:
    """A plain image of a surface and the metric coordinates (right, up) of its texels."""
    columns, rows = max(4, round(width / TEXEL)), max(4, round(height / TEXEL))
    u = (np.arange(columns) + 0.5) / columns * width
    v = height - (np.arange(rows) + 0.5) / rows * height
    right, up = np.meshgrid(u, v)
    return np.ones((rows, columns, 3)) * np.asarray(colour), right, up


def wall_image(
    rng: np.random.Generator,
    style: str,
    length: float,
    height: float,
    colours: RoomColours,
    brightness: float,
) -> Image:
    """Paint one wall.

    Args:
        rng: Source of the details.
        style: `plain`, `stripes`, `wainscot`, `brick`, `band`, `panels` or `feature`.
        length: Length of the wall, metres.
        height: Height of the wall, metres.
        colours: Colours of the room.
        brightness: Factor for the way the wall faces.

    Returns:
        [rows, columns, 3] in [0, 1].
    """
    image, right, up = _canvas(length, height, colours.feature if style == "feature" else colours.wall)
    if style == "stripes":
        period = length / max(2, round(length / float(rng.uniform(0.5, 0.9))))
        mixed = np.asarray(colours.wall) * 0.5 + np.asarray(colours.second) * 0.5
        image[(right / period) % 1.0 < 0.5] = mixed
    elif style == "wainscot":
        rail = float(rng.uniform(0.85, 1.1))
        image[up < rail] = colours.second
        image[(up >= rail) & (up < rail + 0.08)] = colours.trim
    elif style == "brick":
        course = np.floor(up / 0.26)
        shifted = right / 0.6 + 0.5 * (course % 2)
        tone = 0.9 + 0.16 * ((np.floor(shifted) * 7 + course * 13) % 5) / 4
        image = np.asarray(colours.second) * tone[..., None]
        joint = ((up / 0.26) % 1.0 < 0.16) | (shifted % 1.0 < 0.07)
        image[joint] = np.asarray(colours.second) * 0.5 + np.asarray(colours.wall) * 0.5
    elif style == "band":
        low = float(rng.uniform(1.0, 1.3))
        image[(up > low) & (up < low + 0.3)] = colours.feature
    elif style == "panels":
        count = max(1, round(length / 1.1))
        across = (right / length * count) % 1.0 * length / count
        inner = (across > 0.16) & (across < length / count - 0.16) & (up > 0.35) & (up < height - 0.35)
        image[inner] = np.asarray(colours.wall) * 0.55 + np.asarray(colours.second) * 0.45
    image[up < 0.12] = colours.trim
    image[up > height - 0.09] = colours.trim
    edge = np.minimum(np.minimum(right, length - right), height - up)
    soft = 1.0 - 0.13 * np.exp(-edge / 0.3) - 0.16 * np.exp(-up / 0.45)
    return np.clip(image * (soft * brightness)[..., None], 0, 1)


def floor_image(
    rng: np.random.Generator, style: str, width: float, depth: float, colours: RoomColours
) -> Image:
    """Paint one floor, unlit.

    Args:
        rng: Source of the details.
        style: `planks`, `checker`, `tiles` or `carpet`.
        width: Extent in x, metres.
        depth: Extent in y, metres.
        colours: Colours of the room.

    Returns:
        [rows, columns, 3] in [0, 1].
    """
    image, right, up = _canvas(width, depth, colours.floor)
    main, second = np.asarray(colours.floor), np.asarray(colours.floor_second)
    if style == "planks":
        across, along = (right, up) if rng.random() < 0.5 else (up, right)
        row = np.floor(across / 0.32)
        board = np.floor(along / 1.6 + (row * 0.37) % 1.0)
        tone = 0.84 + 0.28 * ((row * 5 + board * 11) % 7) / 6
        image = main * tone[..., None]
    elif style == "checker":
        size = float(rng.uniform(0.4, 0.6))
        odd = (np.floor(right / size) + np.floor(up / size)) % 2 == 1
        image[odd] = second
    elif style == "tiles":
        size = float(rng.uniform(0.6, 0.8))
        joint = ((right / size) % 1.0 < 0.08) | ((up / size) % 1.0 < 0.08)
        image[joint] = second
    else:
        border = (np.minimum(right, width - right) < 0.3) | (np.minimum(up, depth - up) < 0.3)
        image[border] = main * 0.6 + second * 0.4
    return image


def ceiling_image(width: float, depth: float, colours: RoomColours, lamp: bool) -> Image:
    """Paint one ceiling, lighter around its lamp; sizes in metres, result [rows, columns, 3] in [0, 1]."""
    tint = np.asarray(colours.wall) * 0.15 + 0.82
    image, right, up = _canvas(width, depth, (tint[0], tint[1], tint[2]))
    reach = np.hypot(right - width / 2, up - depth / 2)
    glow = 0.78 + (0.2 if lamp else 0.1) * np.exp(-((reach / 1.6) ** 2))
    edge = np.minimum(np.minimum(right, width - right), np.minimum(up, depth - up))
    return np.clip(image * (glow - 0.07 * np.exp(-edge / 0.25))[..., None], 0, 1)


def shade_floor(
    image: Image,
    width: float,
    depth: float,
    shadows: list[tuple[float, float, float, float, float]],
    patches: list[tuple[float, float, float, float]],
) -> Image:
    """Bake corner shade, soft shadows under furniture and daylight under windows into a floor.

    Args:
        image: The unlit floor, [rows, columns, 3].
        width: Extent in x, metres.
        depth: Extent in y, metres.
        shadows: Footprints as (centre x, centre y, half width, half depth, yaw), from the lower corner.
        patches: Daylight rectangles as (x0, x1, y0, y1).

    Returns:
        The lit floor, [rows, columns, 3] in [0, 1].
    """
    _, right, up = _canvas(width, depth, (0.0, 0.0, 0.0))
    edge = np.minimum(np.minimum(right, width - right), np.minimum(up, depth - up))
    light = 0.98 - 0.18 * np.exp(-edge / 0.35)
    for x0, x1, y0, y1 in patches:
        beside = np.maximum(np.maximum(x0 - right, right - x1), 0)
        gap = np.hypot(beside, np.maximum(np.maximum(y0 - up, up - y1), 0))
        light += 0.16 * np.exp(-((gap / 0.25) ** 2))
    for cx, cy, hx, hy, yaw in shadows:
        dx, dy = right - cx, up - cy
        lx = np.abs(math.cos(yaw) * dx + math.sin(yaw) * dy) - hx
        ly = np.abs(-math.sin(yaw) * dx + math.cos(yaw) * dy) - hy
        gap = np.hypot(np.maximum(lx, 0), np.maximum(ly, 0))
        light *= 1 - 0.38 * np.exp(-((gap / 0.16) ** 2))
    return np.clip(image * light[..., None], 0, 1)


def rug_image(rng: np.random.Generator, width: float, depth: float, colours: RoomColours) -> Image:
    """Paint a rug with a border and a large motif; sizes in metres, result [rows, columns, 3] in [0, 1]."""
    base = np.asarray(colours.accent) * 0.85
    image, right, up = _canvas(width, depth, (base[0], base[1], base[2]))
    light = np.asarray(hsv(float(rng.random()), 0.15, 0.92))
    x, y = (right / width - 0.5) * 2, (up / depth - 0.5) * 2
    motif = int(rng.integers(4))
    if motif == 0:
        image[np.abs(x) + np.abs(y) < 0.75] = light
        image[np.abs(x) + np.abs(y) < 0.4] = colours.feature
    elif motif == 1:
        image[(np.floor((right / width) * 6) % 2) == 1] = light
    elif motif == 2:
        image[np.hypot(x, y) < 0.7] = light
        image[np.hypot(x, y) < 0.35] = base
    else:
        image[(np.abs(x) < 0.6) & (np.abs(y) < 0.6)] = colours.feature
        image[(np.abs(x) < 0.3) & (np.abs(y) < 0.3)] = light
    border = np.minimum(np.minimum(right, width - right), np.minimum(up, depth - up)) < 0.12
    image[border] = light * 0.9
    return np.clip(image, 0, 1)


def picture_image(rng: np.random.Generator, brightness: float) -> Image:
    """Paint a framed picture's canvas with large shapes, [32, 32, 3] in [0, 1]."""
    y, x = np.mgrid[0:32, 0:32] / 31.0
    hue = float(rng.random())
    image = np.ones((32, 32, 3)) * np.asarray(hsv(hue, float(rng.uniform(0.1, 0.5)), 0.95))
    kind = int(rng.integers(4))
    strong = np.asarray(hsv(hue + 0.5, 0.75, 0.75))
    deep = np.asarray(hsv(hue + 0.1, 0.7, 0.4))
    if kind == 0:
        sky, tip = np.asarray(hsv(0.57, 0.35, 0.95)), float(rng.uniform(0.3, 0.7))
        image[:] = sky
        image[y > 0.45 + 0.8 * np.abs(x - tip)] = hsv(0.6, 0.2, 0.55)
        image[y > 0.7 + 0.08 * np.sin(6 * x + hue)] = hsv(float(rng.uniform(0.2, 0.4)), 0.55, 0.55)
        image[np.hypot(x - (1 - tip), y - 0.25) < 0.12] = hsv(0.13, 0.5, 1.0)
    elif kind == 1:
        cut_x, cut_y = float(rng.uniform(0.3, 0.7)), float(rng.uniform(0.3, 0.7))
        image[(x > cut_x) & (y > cut_y)] = strong
        image[(x < cut_x) & (y < cut_y)] = deep
        image[(np.abs(x - cut_x) < 0.04) | (np.abs(y - cut_y) < 0.04)] = 0.12
    elif kind == 2:
        image[np.hypot(x - 0.5, y - 0.5) < 0.38] = strong
        image[np.hypot(x - float(rng.uniform(0.3, 0.6)), y - 0.5) < 0.2] = deep
    else:
        image[np.floor(y * 4) % 2 == 1] = strong
        image[(x > 0.35) & (x < 0.65)] = deep
    result: Image = np.clip(image * brightness, 0, 1)
    return result


def to_uint8(image: Image) -> NDArray[np.uint8]:
    """Round an image in [0, 1] to uint8."""
    result: NDArray[np.uint8] = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return result
