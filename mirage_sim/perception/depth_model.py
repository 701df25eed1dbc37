"""Depth model: a depth estimator of transformers from a local folder, aligned to what the memory knows.

Depth Anything (metric and relative) and DPT (relative). A relative model says inverse depth up to scale and
shift: it needs a first frame whose depth is given, and remembered cells in every later view.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from mirage_sim.errors import InputError, StateError
from mirage_sim.perception.align import perceive
from mirage_sim.perception.pictures import Preparation
from mirage_sim.perception.protocol import Perceived, Seen
from mirage_sim.pretrained import load_pretrained, read_config

KINDS = ("depth_anything", "dpt")
_NEAR = 0.05  # metres


class DepthModel:
    """A `DepthEstimator` that looks at pictures."""

    needs_frames = True

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        far: float = 30.0,
        edge_ratio: float = 1.25,
    ) -> None:
        """Load an estimator.

        Args:
            folder: Where `save_pretrained` of model and image processor wrote.
            device: Where it runs.
            dtype: Of its weights.
            far: Metres beyond which nothing counts as a surface.
            edge_ratio: Farthest over nearest depth in a cell from which it is not sure.

        Raises:
            FileFormatError: If the folder holds another kind of model, or a damaged one.
        """
        config = read_config(folder, KINDS)
        from transformers import AutoModelForDepthEstimation

        self.metric = config.get("depth_estimation_type") == "metric"
        self._prepare = Preparation.read(folder)
        self._model = load_pretrained(AutoModelForDepthEstimation, folder, dtype).to(device)
        self._far, self._edge_ratio = far, edge_ratio

    @torch.no_grad()
    def inverse_depth(self, frames: Tensor) -> Tensor:
        """Say inverse depth: in 1 / metres, or up to scale and shift.

        Args:
            frames: [N, 3, H, W] in [-1, 1].

        Returns:
            float32 [N, H, W], at least 0.
        """
        pictures = self._prepare(frames).to(self._model.dtype)
        said = self._model(pixel_values=pictures).predicted_depth.float()  # [N, H', W']
        if self.metric:
            said = 1.0 / said.clamp(min=_NEAR)
        size = (frames.shape[-2], frames.shape[-1])
        whole: Tensor = interpolate(said[:, None], size, mode="nearest-exact")[:, 0]
        return whole.clamp(min=0.0)

    def estimate(self, seen: Seen) -> Perceived:
        """Tell depth and surface of N views.

        Args:
            seen: Pictures, and what the memory knows.

        Returns:
            What is there; cells with an edge of depth in them are not sure.

        Raises:
            InputError: If there are no pictures.
            StateError: If a relative model has too little to be aligned to.
        """
        if seen.frames is None:
            raise InputError("seen.frames must be given to a depth model, got None")
        inverse = self.inverse_depth(seen.frames)
        perceived, told = perceive(inverse, seen, self._far, self._edge_ratio)
        if not self.metric and not bool(told.all()):
            raise StateError(
                "a relative depth model needs remembered cells to be aligned to: give the first frame's "
                "depth, and let views overlap with what was seen, or use a metric model"
            )
        return perceived
