"""Stage 9: the refiner learns to go along its flow in few passes.

With few passes it cuts the corners of its flow, and what it draws has the soft edges of a mean. A frozen copy
goes from every pass's share of noise to the next one's in many small steps; the refiner learns to land at the
same place in one.

Source: progressive distillation (arXiv 2202.00512), here in one round and along a straight flow.
"""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.model.refiner import Refiner, output_scales
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.loop import BatchLoss, StageConfig, cell_error, run_stage
from mirage_sim.training.refine import Draft, imagined_figures, make_drafts, pick_drafts, pool_size
from mirage_sim.training.samples import LatentClips, SamplesConfig

SMALL_STEPS = 3  # of the teacher, two passes each, for one pass of the refiner


@torch.no_grad()
def landing(teacher: Refiner, draft: Draft, noisy: Tensor, share: Tensor, passes: int, steps: int) -> Tensor:
    """Tell what one pass has to say to land where many small steps do.

    Args:
        teacher: Refiner that has learnt its flow.
        draft: B samples of one frame.
        noisy: Latents on the flow, [B, C, h, w].
        share: Shares of noise where the pass begins, multiples of 1 / passes, [B, 1, 1, 1].
        passes: Passes of the refiner along the whole flow.
        steps: Small steps for one of them, each by the midpoint rule.

    Returns:
        float32 [B, C, h, w], what `Refiner.forward` should give.
    """
    known, latents = draft.known.flatten(0, 1)[:, None], draft.latents.flatten(0, 1)
    small = 1.0 / (passes * steps)
    there = noisy
    for step in range(steps):
        left = share - step * small
        half = left - 0.5 * small
        told = teacher(there, left, latents, known, draft.geometry)
        middle = torch.lerp(told, there, half / left)
        told = teacher(middle, half, latents, known, draft.geometry)
        there = there + (told - middle) * (small / half)
    return torch.where(known, latents, noisy + passes * share * (there - noisy))


def distil_loss(module: nn.Module, draft: Draft, noisy: Tensor, share: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of what a pass says over unknown cells, by what the noise leaves open.

    Args:
        module: The refiner, perhaps wrapped for several processes.
        draft: B samples of one frame.
        noisy: Latents on the flow, [B, C, h, w].
        share: Shares of noise, [B, 1, 1, 1].
        wanted: What `landing` gave.

    Returns:
        Scalar.
    """
    known, latents = draft.known.flatten(0, 1)[:, None], draft.latents.flatten(0, 1)
    told = module(noisy, share, latents, known, draft.geometry)
    open_ = output_scales(share)[1]
    return cell_error((told / open_)[:, None], (wanted / open_)[:, None], (~known).float()[:, None])


def train_distil(
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
) -> None:
    """Train the refiner in place for as many passes as the sampler makes.

    Args:
        model: World model whose refiner has learnt its flow.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
    """
    drawn = samples if samples is not None else SamplesConfig()
    passes = model.config.sampler.refine_steps
    model.requires_grad_(False)
    teacher = copy.deepcopy(model.refiner).eval()
    model.refiner.requires_grad_(True)
    drafts = make_drafts(model, clips, pool_size(clips, config), config.batch_size, drawn, config.seed)

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            draft, chance = pick_drafts(drafts, config.batch_size, rng)
            device = chance.device
            begun = torch.randint(1, passes + 1, (len(draft.known), 1, 1, 1), generator=chance, device=device)
            share = begun / passes
            noise = torch.randn(draft.target[:, 0].shape, generator=chance, device=device)
            noisy = torch.lerp(draft.target[:, 0], noise, share)
            wanted = landing(teacher, draft, noisy, share, passes, SMALL_STEPS)
            return distil_loss(module, draft, noisy, share, wanted), {}

        return loss

    def validate(_: nn.Module) -> dict[str, float]:
        return imagined_figures(model, held_out, drawn, config.batch_size, passes)

    for network in (model.refiner, teacher):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run_stage("distil", model.refiner, batch_loss, config, out, validate)
    model.requires_grad_(False)
