"""The sky seen through windows: a function of the viewing direction alone, so it stands still."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from numpy.typing import NDArray

from mirage_sim.scenes.mesh import Floats
from mirage_sim.scenes.renderer import SkyLook


def paint_sky(rays: Floats, look: SkyLook) -> NDArray[np.uint8]:
    """Paint the sky in some directions.

    Args:
        rays: Directions in the world [..., 3], of any length.
        look: Hue of the sky and the phase of the skyline, in turns.

    Returns:
        [..., 3].
    """
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
