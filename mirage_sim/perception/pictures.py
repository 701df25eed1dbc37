"""Pictures: brought to the size and range that a model of transformers was trained on.

Source: fields of `preprocessor_config.json` as transformers documents them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mirage_sim.errors import FileFormatError
from mirage_sim.pretrained import read_json

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of the channels, in [0, 1]."""


@dataclass(frozen=True)
class Preparation:
    """How pictures are prepared.

    Attributes:
        height: Rows that the model is made for.
        width: Columns.
        keep_aspect: Whether the picture keeps its aspect; the smaller change of size counts.
        multiple: Both sizes are multiples of this.
        mean: Of the channels, in [0, 1].
        std: Of the channels.
    """

    height: int
    width: int
    keep_aspect: bool
    multiple: int
    mean: tuple[float, ...]
    std: tuple[float, ...]

    @classmethod
    def read(cls, folder: Path) -> Preparation:
        """Read `preprocessor_config.json`.

        Args:
            folder: The model's.

        Returns:
            The preparation.

        Raises:
            FileFormatError: If it is missing or tells no size.
        """
        values = read_json(folder / "preprocessor_config.json")
        size: Any = values.get("size")
        if isinstance(size, dict):
            edge = size.get("shortest_edge")
            size = [size.get("height", edge), size.get("width", edge)]
        else:
            size = [size, size]
        multiple = values.get("ensure_multiple_of", values.get("size_divisor")) or 1
        if not all(type(number) is int and number > 0 for number in (*size, multiple)):
            raise FileFormatError(
                f"{folder / 'preprocessor_config.json'} must tell size as height and width, got {values}"
            )
        keep = bool(values.get("keep_aspect_ratio", False))
        mean, std = values.get("image_mean", IMAGENET[0]), values.get("image_std", IMAGENET[1])
        if not values.get("do_normalize", True):
            mean, std = [0.0] * 3, [1.0] * 3
        return cls(size[0], size[1], keep, multiple, tuple(mean), tuple(std))

    def sizes(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns to which a picture of this size is brought."""
        rows, columns = self.height / height, self.width / width
        if self.keep_aspect:
            rows = columns = min(rows, columns, key=lambda factor: abs(1.0 - factor))

        def whole(size: float) -> int:
            return max(1, round(size / self.multiple)) * self.multiple

        return whole(rows * height), whole(columns * width)

    def __call__(self, frames: Tensor) -> Tensor:
        """Prepare pictures.

        Args:
            frames: [N, 3, H, W] in [-1, 1].

        Returns:
            float32 [N, 3, H', W'].
        """
        size = self.sizes(frames.shape[-2], frames.shape[-1])
        pictures = (0.5 * frames.float() + 0.5).clamp(0.0, 1.0)
        if size != frames.shape[-2:]:
            pictures = interpolate(pictures, size, mode="bicubic", align_corners=False, antialias=True)
        mean, std = torch.tensor([self.mean, self.std], device=frames.device, dtype=torch.float32)[
            :, :, None, None
        ]
        prepared: Tensor = (pictures.clamp(0.0, 1.0) - mean) / std
        return prepared
