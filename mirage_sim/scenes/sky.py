"""The sky seen through windows: a function of the viewing direction alone, so it stands still."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from mirage_sim.geometry.cameras import ray_directions


def paint_sky(
    cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int], look: tuple[float, float]
) -> NDArray[np.uint8]:
    """Paint the sky for a whole image.

    Args:
        cam2world: [4, 4] camera pose.
        intrinsics: [3, 3] in pixels.
        hw: Height and width, pixels.
        look: Hue of the sky and the phase of the skyline, in turns.

    Returns:
        [H, W, 3].

    Source: ours.
    """
    rays = ray_directions(cam2world, intrinsics, hw).numpy()  # [H, W, 3]
    azimuth = np.arctan2(rays[..., 1], rays[..., 0])
    elevation = np.arctan2(rays[..., 2], np.hypot(rays[..., 0], rays[..., 1]))
    hue, phase = look
    high = np.asarray(colorsys.hsv_to_rgb(hue, 0.5, 0.95))
    low = np.asarray(colorsys.hsv_to_rgb(hue, 0.1, 1.0))
    mix = np.clip(elevation / 0.6, 0.0, 1.0)[..., None]
    image = low * (1 - mix) + high * mix
    line = -0.03 + 0.05 * np.sin(3 * azimuth + 2 * math.pi * phase) + 0.03 * np.sin(7 * azimuth)
    image[elevation < line] = (0.55, 0.66, 0.55)
    image[elevation < line - 0.12] = (0.45, 0.58, 0.42)
    result: NDArray[np.uint8] = np.round(image * 255).astype(np.uint8)
    return result
