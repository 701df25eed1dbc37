"""Stage 9: the guide, a smaller refiner that learns for a short time. It errs as the refiner does, only more.

What a small network draws is spread too widely: colours and edges that never stand together. What the guide
draws is spread wider still; so beyond the refiner, seen from the guide, lies what is rather there.

Source: guiding a diffusion model with a bad version of itself (arXiv 2406.02507).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mirage_sim.errors import FileFormatError
from mirage_sim.files import whole_file
from mirage_sim.model.refiner import Refiner, RefinerConfig
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.refine import VALIDATION_STEPS, flow_loss, run_refiner_stage
from mirage_sim.training.samples import LatentClips, SamplesConfig

GUIDE_FILE = "guide.safetensors"

Teller = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
"""Tells what noisy latents come from; arguments and result as for `Refiner.forward`."""


def guide_config(refiner: RefinerConfig) -> RefinerConfig:
    """Shape of the guide: half as wide as the refiner, one block a level."""
    return replace(refiner, widths=tuple(max(1, width // 2) for width in refiner.widths), blocks=1)


def guided(refiner: Teller, guide: Teller, weight: float) -> Teller:
    """Go from what the guide tells to what the refiner tells, and beyond.

    Args:
        refiner: Has learnt its flow.
        guide: Has learnt the same, but less.
        weight: How far; at 1 the guide does not count.

    Returns:
        A teller of both.
    """

    def tell(noisy: Tensor, share: Tensor, draft: Tensor, known: Tensor, geometry: Tensor) -> Tensor:
        seen = (noisy, share, draft, known, geometry)
        return torch.lerp(guide(*seen), refiner(*seen), weight)

    return tell


def train_guide(
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
) -> None:
    """Train a guide from random weights and keep it beside the model; the model stays as it is.

    Args:
        model: World model whose refiner has learnt its flow.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run; receives `guide.safetensors`.
        samples: How samples are drawn.
    """
    shape = guide_config(model.refiner.config)
    other = model.with_settings(refiner=shape)
    other.refiner = Refiner(shape).to(model.device)
    run_refiner_stage("guide", other, clips, held_out, config, out, samples, flow_loss, VALIDATION_STEPS)
    tensors = {name: tensor.cpu().contiguous() for name, tensor in other.refiner.state_dict().items()}
    with whole_file(out / GUIDE_FILE) as temporary:
        save_file(tensors, temporary)


def load_guide(model: WorldModel, out: Path) -> Refiner:
    """Load what `train_guide` kept.

    Args:
        model: World model that it was trained beside.
        out: Folder of the run.

    Returns:
        The guide, frozen, on the model's device.

    Raises:
        FileFormatError: If it is missing, damaged or of another shape.
    """
    path = out / GUIDE_FILE
    if not path.exists():
        raise FileFormatError(f"{out} must hold {GUIDE_FILE}: train the stage `guide` first")
    guide = Refiner(guide_config(model.refiner.config))
    try:
        guide.load_state_dict(load_file(path))
    except (SafetensorError, RuntimeError) as error:
        raise FileFormatError(f"{path} must be a guide of this refiner: {error}") from error
    return guide.requires_grad_(False).eval().to(model.device)
