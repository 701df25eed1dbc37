"""Images at the border (uint8 HWC) and inside (float CHW in [-1, 1]): one way in and one out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import is_tensor, own_array
from mirage_sim.errors import InputError, InputTypeError, check_shape

Array = np.ndarray[Any, Any]


def check_image(name: str, image: Array, height: int | None = None, width: int | None = None) -> Array:
    """Copy `image` if it is uint8 [..., H, W, 3] of the wanted size.

    Args:
        name: Argument name for the message.
        image: Array or tensor to check.
        height: Wanted H in pixels, or `None` for any.
        width: Wanted W in pixels, or `None` for any.

    Returns:
        An array that shares no memory with it.

    Raises:
        InputTypeError: If it is not an array of dtype uint8.
        InputError: If the shape differs.
    """
    if not (isinstance(image, np.ndarray) or is_tensor(image)):
        raise InputTypeError(f"{name} must be a uint8 array, got {type(image).__name__}")
    if str(image.dtype).removeprefix("torch.") != "uint8":
        raise InputTypeError(f"{name} must be a uint8 array, got dtype {image.dtype}")
    wanted = ["...", height if height is not None else "H", width if width is not None else "W", 3]
    check_shape(name, image, wanted)
    pixels = own_array(name, image)
    if pixels.size == 0:
        raise InputError(f"{name} must not be empty, got shape {list(pixels.shape)}")
    return pixels


def frames_to_tensor(frames: Array, device: torch.device | str = "cpu") -> Tensor:
    """Convert border images to network images.

    Args:
        frames: uint8 [..., H, W, 3].
        device: Where the tensor goes.

    Returns:
        float32 [..., 3, H, W] in [-1, 1].
    """
    return scale_pixels(torch.from_numpy(check_image("frames", frames)).to(device))


def scale_pixels(pixels: Tensor) -> Tensor:
    """Convert pixels uint8 [..., H, W, 3], on any device, to float32 [..., 3, H, W] in [-1, 1]."""
    return pixels.movedim(-1, -3).float().div_(127.5).sub_(1.0)


def tensor_to_frames(images: Tensor) -> Array:
    """Convert network images to border images.

    Args:
        images: float [..., 3, H, W] in [-1, 1]; values outside are clipped.

    Returns:
        uint8 [..., H, W, 3] on the CPU.
    """
    pixels = images.detach().float().add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
    frames: Array = np.ascontiguousarray(pixels.movedim(-3, -1).cpu().numpy())
    return frames
