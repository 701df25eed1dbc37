"""Stage 7: the generator is tuned at the sampler's own few steps, against a critic of what is imagined.

A squared error alone draws the mean of all that could be there, which is a blur. The critic sees latents and
tells imagined cells from true ones; cells that the memory knows are held to the truth by their squared error.

Source: adversarial tuning of few-step samplers in latent space as in LADD (arXiv 2403.12015), with a small
critic of our own in the place of a pretrained one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mirage_sim.model.generator import Generator
from mirage_sim.model.sampler import sample as draw_latents
from mirage_sim.model.sampler import spread_over_cells
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.generator import VALIDATION_BATCHES, Task, make_task
from mirage_sim.training.loop import BatchLoss, StageConfig, run_stage
from mirage_sim.training.samples import LatentClips, SamplesConfig, draw_sample

KNOWN, IMAGINED = 1.0, 0.25  # weights of the squared error where the memory knows and where it does not
ADVERSARIAL, FEATURES = 0.15, 0.5  # weights of the critic's verdict and of the distance between its features
CRITIC_NOISE = 0.1  # on what the critic sees, so that it cannot live on details


class Critic(nn.Module):
    """Scores blocks of 2 x 2 latent cells: high for true ones."""

    def __init__(self, channels: int, width: int = 96) -> None:
        """Build the network with random weights.

        Args:
            channels: Latent channels C.
            width: Channels of the first layers.
        """
        super().__init__()
        self.layers = nn.ModuleList(
            [
                nn.Conv2d(channels + 1, width, 3, padding=1),
                nn.Conv2d(width, width, 3, padding=1),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
            ]
        )
        self.score = nn.Conv2d(2 * width, 1, 1)

    def forward(self, latents: Tensor, imagined: Tensor) -> tuple[Tensor, Tensor]:
        """Score latents [N, C, h, w], told which cells are imagined, [N, 1, h, w].

        Returns:
            Scores [N, 1, h/2, w/2] and the features before them, [N, F, h/2, w/2].
        """
        hidden = torch.cat([latents, imagined], dim=1)
        for layer in self.layers:
            hidden = F.leaky_relu(layer(hidden), 0.2)
        return self.score(hidden), hidden


@dataclass(frozen=True)
class Drawn:
    """What the sampler made of a task.

    Attributes:
        latents: [B, T, C, h, w].
        imagined: float [B, T, 1, h, w], 1 in tokens that began at noise.
        moves: float [B, T, 1, h, w], 0 in tokens that stay as they were read.
    """

    latents: Tensor
    imagined: Tensor
    moves: Tensor


class Polish(nn.Module):
    """Generator and critic with their common loss; neither's part of it reaches the other's weights."""

    def __init__(self, model: WorldModel) -> None:
        """Put a new critic beside the model's generator."""
        super().__init__()
        self.config = model.config
        self.generator: Generator = model.generator
        self.critic = Critic(model.config.codec.channels)

    def draw(self, task: Task) -> Drawn:
        """Run the sampler as the world does; only its last step keeps gradients."""
        passes = 0

        def velocity(noisy: Tensor, sigma: Tensor) -> Tensor:
            nonlocal passes
            passes += 1
            last = passes == self.config.sampler.steps
            with torch.set_grad_enabled(last and torch.is_grad_enabled()):
                flow: Tensor = self.generator(
                    noisy, sigma, task.context, task.preceding, task.references, task.condition
                )
            return flow

        latents = draw_latents(velocity, task.start, task.fraction, self.config.sampler)
        patch = self.config.generator.patch_hw
        return Drawn(
            latents,
            spread_over_cells((task.fraction == 1).float(), patch),
            spread_over_cells((task.fraction > 0).float(), patch),
        )

    def forward(self, task: Task, noise: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of a task; `noise` [2, B, T, C, h, w] disturbs what the critic sees."""
        drawn = self.draw(task)
        weight = IMAGINED * drawn.imagined + KNOWN * (1.0 - drawn.imagined) * drawn.moves
        error = ((drawn.latents - task.target).square() * weight).mean()
        # the critic is to judge what is imagined, so it sees the truth everywhere else
        shown = torch.where(drawn.imagined > 0, drawn.latents, task.target)
        made, true = (part.flatten(0, 1) for part in (shown + noise[0], task.target + noise[1]))
        cells = drawn.imagined.flatten(0, 1)
        frozen = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        verdict, look = functional_call(self.critic, frozen, (made, cells))
        said_made = self.critic(made.detach(), cells)[0]
        said_true, aim = self.critic(true, cells)
        blocks = F.adaptive_avg_pool2d(cells, (verdict.shape[-2], verdict.shape[-1]))  # [N, 1, h/2, w/2]
        share = blocks / blocks.sum().clamp(min=1.0)
        judged = (share * (F.relu(1.0 + said_made) + F.relu(1.0 - said_true))).sum()
        fooled = -(share * verdict).sum()
        alike = (share * (look - aim.detach()).abs().mean(dim=1, keepdim=True)).sum()
        loss = error + ADVERSARIAL * fooled + FEATURES * alike + judged
        return loss, {"error": float(error.detach()), "critic": float(judged.detach())}


def train_polish(
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
) -> None:
    """Tune the generator in place.

    Args:
        model: World model whose earlier stages are trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
    """
    drawn = samples if samples is not None else SamplesConfig()
    model.requires_grad_(False)
    model.generator.requires_grad_(True)
    polish = Polish(model)

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
            task = make_task(model, draw_sample(clips, config.batch_size, drawn, rng), rng, from_noise=0.0)
            noise = rng.standard_normal((2, *task.target.shape), dtype=np.float32)
            result: tuple[Tensor, dict[str, float]] = module(
                task, CRITIC_NOISE * torch.from_numpy(noise).to(model.device)
            )
            return result

        return loss

    def validate(_: nn.Module) -> dict[str, float]:
        sums = {"known": [0.0, 0.0], "imagined": [0.0, 0.0], "contrast": [0.0, 0.0]}
        for index in range(VALIDATION_BATCHES):
            rng = np.random.default_rng([7, index])
            task = make_task(model, draw_sample(held_out, config.batch_size, drawn, rng), rng, from_noise=0.0)
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                made = polish.draw(task)
            error = (made.latents - task.target).square().mean(dim=2, keepdim=True)
            for name, cells in (("known", made.moves - made.imagined), ("imagined", made.imagined)):
                sums[name][0] += float((error * cells).sum())
                sums[name][1] += float(cells.sum())
            for place, latents in enumerate((made.latents, task.target)):
                steps = latents.diff(dim=-1).square() * made.imagined[..., 1:] * made.imagined[..., :-1]
                sums["contrast"][place] += float(steps.sum())
        return {f"validation_{name}": top / max(bottom, 1e-6) for name, (top, bottom) in sums.items()}

    run_stage("polish", polish, batch_loss, config, out, validate)
    model.requires_grad_(False)
