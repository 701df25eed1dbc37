"""Stage 10: the refiner learns to go along its guided flow in few passes.

With few passes it cuts the corners of its flow, and what it draws has the soft edges of a mean. A frozen copy
with the guide beside it goes from noise to a drawing in many small steps; the refiner learns to go as far in
every pass as they do in a part of them.

Source: progressive distillation (arXiv 2202.00512), here in one round and along a straight flow; of guided
flows, arXiv 2210.03142.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.guide import Teller, guided, load_guide
from mirage_sim.training.refine import Draft, refine_loss, run_refiner_stage
from mirage_sim.training.samples import LatentClips, SamplesConfig

SMALL_STEPS = 3  # of the teacher, two passes each, for one pass of the refiner
GUIDANCE = 1.7  # weight of the refiner against the guide; chosen by eye on 8 validation scenes


@torch.no_grad()
def landing(teacher: Teller, draft: Draft, noisy: Tensor, share: Tensor, passes: int, steps: int) -> Tensor:
    """Tell what one pass has to say to land where many small steps do.

    Args:
        teacher: Tells where the flow goes.
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

    Raises:
        InputError: If the sampler makes no pass.
        FileFormatError: If there is no guide.
    """
    passes = model.config.sampler.refine_steps
    if passes < 1:
        raise InputError(f"sampler.refine_steps must be at least 1 to be taught, got {passes}")
    frozen = copy.deepcopy(model.refiner).requires_grad_(False).eval()
    guide = load_guide(model, out)
    for network in (frozen, guide):
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    teacher = guided(frozen, guide, GUIDANCE)

    def loss(module: nn.Module, draft: Draft, noise: Tensor, _: torch.Generator) -> Tensor:
        noisy, errors = noise, []
        for left in range(passes, 0, -1):
            share = torch.full((len(noise), 1, 1, 1), left / passes, device=noise.device)
            wanted = landing(teacher, draft, noisy, share, passes, SMALL_STEPS)
            errors.append(refine_loss(module, draft, noisy, share, wanted))
            noisy = torch.lerp(wanted, noisy, (left - 1) / left)  # on the teacher's way
        return torch.stack(errors).mean()

    run_refiner_stage("distil", model, clips, held_out, config, out, samples, loss, passes)
