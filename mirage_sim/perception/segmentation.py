"""Segmentation: sky and what may move, by a semantic segmentation model of transformers from a local folder.

Classes are found by the names that the model gives them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d, adaptive_max_pool2d, interpolate

from mirage_sim.errors import InputError
from mirage_sim.perception.pictures import Preparation
from mirage_sim.perception.protocol import Segments
from mirage_sim.pretrained import load_pretrained, read_config

SKY = ("sky", "sky-other-merged")
MOVABLE = (
    *("person", "rider", "animal", "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear"),
    *("zebra", "giraffe", "bicycle", "minibike", "motorcycle", "motorbike", "car", "bus", "truck", "van"),
    *("train", "airplane", "aeroplane", "boat", "ship", "ball", "sports ball", "kite", "frisbee", "flag"),
)
"""Names of what moves by itself or is moved, in ADE20K, Cityscapes and COCO."""
UNIVERSAL = ("mask2former", "maskformer")
SEMANTIC = ("segformer", "upernet", "beit", "dpt")


class SemanticSegmenter:
    """A `Segmenter`."""

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        movable: Iterable[str] | None = None,
        sky: Iterable[str] | None = None,
    ) -> None:
        """Load a model.

        Args:
            folder: Where `save_pretrained` of model and image processor wrote.
            device: Where it runs.
            dtype: Of its weights.
            movable: Names of classes that may move; those of `MOVABLE` that the model has if `None`.
            sky: Names of classes that are sky; those of `SKY` that the model has if `None`.

        Raises:
            FileFormatError: If the folder holds another kind of model, or a damaged one.
            InputError: If the model has no class of a name, or none of the usual ones.
        """
        kind = read_config(folder, (*SEMANTIC, *UNIVERSAL))["model_type"]
        from transformers import AutoModelForSemanticSegmentation, AutoModelForUniversalSegmentation

        loader = AutoModelForUniversalSegmentation if kind in UNIVERSAL else AutoModelForSemanticSegmentation
        self._prepare = Preparation.read(folder)
        self._model = load_pretrained(loader, folder, dtype).to(device)
        labels = self._model.config.id2label
        self._movable = _classes("movable", movable, MOVABLE, labels).to(device)
        self._sky = _classes("sky", sky, SKY, labels).to(device)

    @torch.no_grad()
    def classes(self, frames: Tensor) -> Tensor:
        """Tell the class of every pixel.

        Args:
            frames: [N, 3, H, W] in [-1, 1].

        Returns:
            int64 [N, H, W].
        """
        told = self._model(pixel_values=self._prepare(frames).to(self._model.dtype))
        if hasattr(told, "masks_queries_logits"):
            shares = told.class_queries_logits.float().softmax(dim=-1)[..., :-1]  # [N, Q, K], no "nothing"
            scores = torch.einsum("nqk,nqhw->nkhw", shares, told.masks_queries_logits.float().sigmoid())
        else:
            scores = told.logits.float()
        size = (frames.shape[-2], frames.shape[-1])
        whole: Tensor = interpolate(scores, size, mode="bilinear", align_corners=False).argmax(dim=1)
        return whole

    def segment(self, frames: Tensor, hw: tuple[int, int]) -> Segments:
        """Segment pictures.

        Args:
            frames: [N, 3, H, W] in [-1, 1].
            hw: Rows and columns of cells.

        Returns:
            Cells that are sky for more than a half, and cells with any pixel of what may move.
        """
        classes = self.classes(frames)
        sky = adaptive_avg_pool2d(torch.isin(classes, self._sky).float(), hw) > 0.5
        movable = adaptive_max_pool2d(torch.isin(classes, self._movable).float(), hw) > 0.0
        return Segments(sky, movable)


def _classes(
    argument: str, asked: Iterable[str] | None, usual: Iterable[str], labels: Mapping[int, str]
) -> Tensor:
    """Numbers of the classes of some names; a label may hold several names."""
    named = {
        int(number): {part.strip().lower() for part in re.split("[,;]", label)}
        for number, label in labels.items()
    }
    wanted = {name.lower() for name in (usual if asked is None else asked)}
    found = [number for number, names in named.items() if names & wanted]
    missing = sorted(wanted - set().union(*named.values()))
    if (asked is not None and missing) or not found:
        raise InputError(f"{argument} must name classes of {sorted(labels.values())}, got {missing}")
    return torch.tensor(found, dtype=torch.int64, device="cpu")
