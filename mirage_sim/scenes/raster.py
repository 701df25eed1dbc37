"""The z-buffer: which face is nearest at the centre of every pixel.

Every face is cut into spans, one for each row of pixels that it covers; the ends of a span follow from the
edges exactly. All pixels of all spans are then compared at once by a number that holds 1/depth in its upper
bits and the face in its lower ones, counted down so that the first of several at one depth wins.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mirage_sim.scenes.faces import Indices
from mirage_sim.scenes.mesh import Floats
from mirage_sim.scenes.projection import Projected
from mirage_sim.scenes.renderer import FAR, NEAR

FACE_BITS = 20
"""Lower bits of a z-buffer entry: the face. 32 bits of the fraction of 1/depth are left above them."""
NO_FACE = (1 << FACE_BITS) - 1
"""Number that stands for no face; a scene has fewer faces."""


@dataclass(frozen=True)
class Spans:
    """S runs of pixels, each in one row and one face."""

    faces: Indices
    """[S]."""
    rows: Indices
    """[S]."""
    starts: Indices
    """First column [S]."""
    lengths: Indices
    """Pixels [S], at least 1."""


def nearest_faces(projected: Projected, hw: tuple[int, int]) -> Indices:
    """Find the face that each pixel shows.

    Args:
        projected: Fewer than `NO_FACE` faces over the pixels.
        hw: Height and width of the image, pixels.

    Returns:
        Index [H, W] of the nearest face between `NEAR` and `FAR`, the first one of several at the same depth;
        the number of faces where there is none.
    """
    height, width = hw
    spans = make_spans(projected, hw)
    total = int(spans.lengths.sum())
    first = np.cumsum(spans.lengths) - spans.lengths  # number of each span's first pixel
    a, b, c = projected.inverse_depth[spans.faces].T
    begin = a * (spans.starts + 0.5) + b * (spans.rows + 0.5) + c  # 1/z at the first pixel
    number = np.arange(total)
    pixels = number + np.repeat(spans.rows * width + spans.starts - first, spans.lengths)
    entries = number * np.repeat(a, spans.lengths) + np.repeat(begin - a * first, spans.lengths)
    keys = entries.view(np.int64)  # positive numbers are in the order of their bits
    keys &= ~np.int64(NO_FACE)
    keys |= np.repeat(NO_FACE - spans.faces, spans.lengths)
    nearest = np.full(height * width, 1.0 / FAR).view(np.int64)
    nearest &= ~np.int64(NO_FACE)
    np.maximum.at(nearest, pixels, keys)
    owner: Indices = np.minimum(NO_FACE - (nearest & NO_FACE), len(projected.rows))
    return owner.reshape(height, width)


def make_spans(projected: Projected, hw: tuple[int, int]) -> Spans:
    """Cut faces into the runs of pixels whose centres they cover.

    Args:
        projected: Faces over the pixels.
        hw: Height and width of the image, pixels.

    Returns:
        The spans, in the order of the faces; parts nearer than `NEAR` are left out.
    """
    height, width = hw
    faces, rows = _rows_of_faces(projected.rows, height)
    y = rows + 0.5
    left, right = np.full(len(faces), 0.5), np.full(len(faces), width - 0.5)
    near = -projected.inverse_depth
    near = np.concatenate([near[:, :2], near[:, 2:] + 1.0 / NEAR], axis=1)
    for plane in (*projected.edges.transpose(1, 0, 2), near):  # [Q, 3]
        a, b, c = plane.T
        slope, height_at_0 = a[faces], b[faces] * y + c[faces]
        with np.errstate(divide="ignore", invalid="ignore"):
            crossing = -height_at_0 / slope
        left = np.where(slope > 0, np.maximum(left, crossing), left)
        right = np.where(slope < 0, np.minimum(right, crossing), right)
        right = np.where((slope == 0) & (height_at_0 < 0), -1.0, right)
    starts = np.ceil(np.minimum(left, width) - 0.5).astype(np.int64)
    lengths = np.floor(np.maximum(right, -1.0) - 0.5).astype(np.int64) + 1 - starts
    some = lengths > 0
    return Spans(faces[some], rows[some], starts[some], lengths[some])


def _rows_of_faces(extent: Floats, height: int) -> tuple[Indices, Indices]:
    """Pairs of a face and a row of pixels that it may cover, each [pairs]."""
    low = np.ceil(np.clip(extent[:, 0], 0.0, height) - 0.5).astype(np.int64)
    high = np.floor(np.clip(extent[:, 1], -1.0, height - 0.5) - 0.5).astype(np.int64)
    counts = np.maximum(high - low + 1, 0)
    faces = np.repeat(np.arange(len(extent)), counts)
    rows = np.arange(len(faces)) + np.repeat(low - (np.cumsum(counts) - counts), counts)
    return faces, rows
