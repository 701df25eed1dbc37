"""Colours and depths of pixels whose nearest face is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.faces import Faces, Indices, transform
from mirage_sim.scenes.mesh import Floats
from mirage_sim.scenes.projection import ray_matrix


@dataclass(frozen=True)
class Textures:
    """Several images in one list of texels."""

    texels: NDArray[np.uint32]
    """Red, green, blue and an unused byte of each texel, in this order in memory, row by row."""
    offsets: Indices
    """Number of each image's first texel."""
    rows: Indices
    """Height of each image, texels."""
    columns: Indices
    """Width of each image, texels."""


def pack_textures(images: Sequence[NDArray[np.uint8]]) -> Textures:
    """Put images [rows, columns, 3] into one list."""
    sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)  # [images, 2]
    counts = sizes.prod(axis=1)
    texels = np.zeros((int(counts.sum()), 4), dtype=np.uint8)
    texels[:, :3] = np.concatenate([image.reshape(-1, 3) for image in images])
    return Textures(texels.view(np.uint32)[:, 0], np.cumsum(counts) - counts, sizes[:, 0], sizes[:, 1])


def texture_planes(
    faces: Faces, textures: Textures, cam2world: Floats, intrinsics: Floats, inverse_depth: Floats
) -> Floats:
    """Give column and row in the texture, both divided by depth, as planes over the pixels.

    Args:
        faces: Q faces in the world.
        textures: Their textures.
        cam2world: [4, 4] camera pose.
        intrinsics: [3, 3] in pixels.
        inverse_depth: Planes of 1/z [Q, 3].

    Returns:
        Planes [2, Q, 3], in texels per metre.
    """
    to_ray = cam2world[:3, :3] @ ray_matrix(intrinsics)  # world direction from pixel position
    at_eye = faces.uv_offsets + (faces.uv_slopes * cam2world[:3, 3]).sum(axis=-1)  # [Q, 2]
    u, v = np.moveaxis(transform(faces.uv_slopes, to_ray), 1, 0)  # [Q, 3]
    u, v = u + at_eye[:, :1] * inverse_depth, v + at_eye[:, 1:] * inverse_depth
    columns, rows = textures.columns[faces.textures, None], textures.rows[faces.textures, None]
    return np.stack([u * columns, (inverse_depth - v) * rows])


def depth_of(inverse_depth: Floats, owner: Indices) -> Floats:
    """Give the z-depth of the face that each pixel shows.

    Args:
        inverse_depth: Planes of 1/z [Q, 3].
        owner: Face [H, W] of each pixel, Q for none.

    Returns:
        [H, W] metres, 1 for none.
    """
    depth: Floats = 1.0 / _over_pixels(np.concatenate([inverse_depth, [[0.0, 0.0, 1.0]]]), owner)
    return depth


def colour_of(
    planes: Floats, depth: Floats, owner: Indices, face_textures: Indices, textures: Textures
) -> NDArray[np.uint8]:
    """Look up the texel that each pixel shows.

    Args:
        planes: Column and row over depth as planes [2, Q, 3], see `texture_planes`.
        depth: [H, W] metres.
        owner: Face [H, W] of each pixel, Q for none.
        face_textures: Texture [Q] of each face.
        textures: The textures.

    Returns:
        [H, W, 3]; pixels of no face show any texel.
    """
    face_textures = np.append(face_textures, 0)
    planes = np.concatenate([planes, np.zeros((2, 1, 3))], axis=1)
    columns = textures.columns[face_textures].take(owner)
    texel = _texel(_over_pixels(planes[1], owner) * depth, textures.rows[face_textures].take(owner))
    texel *= columns
    texel += _texel(_over_pixels(planes[0], owner) * depth, columns)
    texel += textures.offsets[face_textures].take(owner)
    colours: NDArray[np.uint8] = textures.texels.take(texel)[..., None].view(np.uint8)[..., :3]
    return colours


def _over_pixels(planes: Floats, owner: Indices) -> Floats:
    """Evaluate each pixel's plane at its centre, [H, W]."""
    height, width = owner.shape
    value: Floats
    value, down, rest = (part.take(owner) for part in np.ascontiguousarray(planes.T))
    value *= np.arange(width) + 0.5
    down *= np.arange(height)[:, None] + 0.5
    value += down
    value += rest
    return value


def _texel(position: Floats, size: Indices) -> Indices:
    """Whole texels of positions, kept inside textures of that size."""
    texel = position.astype(np.int64)
    np.clip(texel, 0, size - 1, out=texel)
    return texel


def average_samples(colours: NDArray[np.uint8], samples: int) -> NDArray[np.uint8]:
    """Average blocks of samples.

    Args:
        colours: [samples * H, samples * W, 3].
        samples: Samples per pixel and axis.

    Returns:
        Mean of each block [H, W, 3], rounded.
    """
    total = np.zeros((colours.shape[0] // samples, colours.shape[1] // samples, 3), dtype=np.float32)
    for row in range(samples):
        for column in range(samples):
            total += colours[row::samples, column::samples]
    return np.rint(total / np.float32(samples * samples)).astype(np.uint8)
