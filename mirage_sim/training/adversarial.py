"""Stage 9: the refiner learns to draw in one pass, and sharply.

From pure noise the refiner of stage 8 can only tell the mean of what could be there. Here a critic asks that
each drawing look like the truth. Where it draws twice, from two noises, the errors of both must not agree: so
drawings are right on average, and noise enters only where the critic asks for it.

Source: the second loss is the moment matching of Lee et al. (arXiv 1902.09225), with two drawings; for the
critic see `critic.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from mirage_sim.model.depth_head import GEOMETRY_CHANNELS
from mirage_sim.model.refiner import Refiner
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.critic import Critic, CriticConfig, contest_config, contest_groups
from mirage_sim.training.loop import BatchLoss, StageConfig, run_stage
from mirage_sim.training.refine import Draft, imagined_figures, make_drafts, pick_drafts, pool_size
from mirage_sim.training.samples import LatentClips, SamplesConfig

MEAN_WEIGHT = 1.0
CRITIC_WEIGHT = 0.5
TWICE = 2  # one sample in so many is drawn twice, and its verdict's steepness measured
SCALES = (1, 2, 4)  # cells per side of the patches whose means are compared


class _Contest(nn.Module):
    """Refiner against critic."""

    def __init__(self, refiner: Refiner, critic: Critic) -> None:
        super().__init__()
        self.refiner = refiner
        self.critic = critic

    def forward(self, draft: Draft, noise: Tensor, jitter: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        known, latents = draft.known.flatten(0, 1)[:, None], draft.latents.flatten(0, 1)
        true = torch.where(known, latents, draft.target.flatten(0, 1))
        share = torch.ones(len(known), 1, 1, 1, device=known.device)
        some = jitter.shape[1]
        given = (torch.cat([part, part[:some]]) for part in (share, latents, known, draft.geometry))
        made, again = self.refiner(noise, *given).split([len(known), some])
        unknown = (~known).float()
        told = torch.cat([known.float(), draft.geometry], dim=1)
        losses = self.critic.contest(made, true, told, unknown, jitter)
        bias = mean_error(torch.stack([made[:some], again]), true[:some], unknown[:some])
        figures = {"bias": bias, **losses._asdict()}
        loss = MEAN_WEIGHT * bias + CRITIC_WEIGHT * losses.maker + losses.critic
        return loss, {name: value.detach() for name, value in figures.items()}


def mean_error(made: Tensor, true: Tensor, open_: Tensor) -> Tensor:
    """Product of the errors of two independent drawings, at several scales.

    Its expectation is the squared error of what is drawn on average: it asks for nothing but the right mean,
    and is blind to how far drawings differ.

    Args:
        made: [2, B, C, h, w], drawn from independent noise.
        true: [B, C, h, w].
        open_: 1 in cells that count, else 0; float32 [B, 1, h, w].

    Returns:
        Scalar, an estimate without bias: it can be negative.
    """
    errors = (made - true) * open_
    total = torch.zeros((), device=true.device)
    for scale in SCALES:
        first, second = (avg_pool2d(error, scale) for error in errors)
        share = avg_pool2d(open_, scale).sum().clamp(min=1e-6)
        total = total + (first * second).mean(dim=1).sum() / share
    return total / len(SCALES)


def train_adversarial(
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
    critic: CriticConfig | None = None,
) -> None:
    """Train the refiner in place; the critic is thrown away.

    Args:
        model: World model whose refiner has learnt its flow.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
        critic: Shape of the critic.
    """
    drawn = samples if samples is not None else SamplesConfig()
    model.requires_grad_(False)
    model.refiner.requires_grad_(True)
    drafts = make_drafts(model, clips, pool_size(clips, config), config.batch_size, drawn, config.seed)
    sizes = critic if critic is not None else CriticConfig(model.codec.channels, 1 + GEOMETRY_CHANNELS)
    contest = _Contest(model.refiner, Critic(sizes).to(model.device))

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            draft, chance = pick_drafts(drafts, config.batch_size, rng)
            shape, some = draft.target.shape[2:], max(1, config.batch_size // TWICE)
            noise = torch.randn(config.batch_size + some, *shape, generator=chance, device=chance.device)
            jitter = torch.randn(2, some, *shape, generator=chance, device=chance.device)
            outcome: tuple[Tensor, dict[str, Tensor]] = module(draft, noise, jitter)
            return outcome

        return loss

    def validate(_: nn.Module) -> dict[str, float]:
        return imagined_figures(model, held_out, drawn, config.batch_size, steps=1)

    contest.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = contest_groups(contest.refiner, contest.critic, config)
    run_stage("adversarial", contest, batch_loss, contest_config(config), out, validate, groups)
    model.requires_grad_(False)
