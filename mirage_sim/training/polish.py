"""Stage 8: the generator is tuned at the sampler's own few steps, against a critic of what is imagined.

A squared error alone draws the mean of all that could be there, which is a blur. The critic sees latents and
tells imagined cells from true ones, both among the same cells that the memory knows.

Source: adversarial tuning of few-step samplers in latent space as in LADD (arXiv 2403.12015), with a small
critic of our own in the place of a pretrained one; its loss pairs drawn and true latents and holds down its
slope at both, as in R3GAN (arXiv 2501.05441), the slope by finite differences as in APT (arXiv 2501.08316);
its verdict counts by the size of its gradient, as in VQGAN (arXiv 2012.09841).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mirage_sim.model.generator import Generator
from mirage_sim.model.sampler import sample as draw_latents
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.generator import Task, make_task
from mirage_sim.training.loop import VALIDATION_BATCHES, BatchLoss, StageConfig, cell_error, run_stage
from mirage_sim.training.samples import LatentClips, SamplesConfig, draw_sample

ADVERSARIAL = 1.0  # size of the critic's gradient in imagined cells, that of a squared error of 1 being 1
CRITIC_RATE = 2.0  # the critic's learning rate, against the generator's
SLOPE_STEP, SLOPE = 0.1, 2.0  # standard deviation of the disturbance that measures the slope, and its weight


class Critic(nn.Module):
    """Scores blocks of 2 x 2 and of 4 x 4 latent cells: high for true ones."""

    def __init__(self, channels: int, width: int = 96) -> None:
        """Build the network with random weights.

        Args:
            channels: Latent channels C.
            width: Channels of the first layers.
        """
        super().__init__()

        def layer(entering: int, leaving: int, kernel: int = 3, stride: int = 1) -> nn.Module:
            convolution = nn.Conv2d(entering, leaving, kernel, stride=stride, padding=1)
            return nn.Sequential(convolution, nn.LeakyReLU(0.2))

        self.fine = nn.Sequential(
            layer(channels + 1, width),
            layer(width, width),
            layer(width, 2 * width, 4, 2),
            layer(2 * width, 2 * width),
        )
        self.coarse = nn.Sequential(
            layer(2 * width, 2 * width), layer(2 * width, 2 * width, 4, 2), layer(2 * width, 2 * width)
        )
        self.scores = nn.ModuleList(nn.Conv2d(2 * width, 1, 1) for _ in range(2))

    def forward(self, latents: Tensor, imagined: Tensor) -> list[Tensor]:
        """Score latents [N, C, h, w], told which cells are imagined, [N, 1, h, w].

        Returns:
            Scores [N, 1, h/2, w/2] and [N, 1, h/4, w/4].
        """
        fine = self.fine(torch.cat([latents, imagined], dim=1))
        return [score(hidden) for score, hidden in zip(self.scores, (fine, self.coarse(fine)), strict=True)]


def mean_over_imagined(maps: list[Tensor], imagined: Tensor) -> Tensor:
    """Average maps of blocks, each block weighed by its imagined cells [N, 1, h, w]; the maps count alike."""
    total = imagined.new_zeros(())
    for values in maps:
        share = F.adaptive_avg_pool2d(imagined, (values.shape[-2], values.shape[-1]))
        total = total + (share * values).sum() / share.sum().clamp(min=1e-6)
    return total / len(maps)


class Polish(nn.Module):
    """Generator and critic with their common loss; neither's part of it reaches the other's weights."""

    def __init__(self, model: WorldModel) -> None:
        """Put a new critic beside the model's generator."""
        super().__init__()
        self.config = model.config
        self.generator: Generator = model.generator
        self.critic = Critic(model.config.codec.channels)

    def groups(self, learning_rate: float) -> list[dict[str, Any]]:
        """Parameter groups of the optimiser: the critic learns faster and with less momentum."""
        return [
            {"params": list(self.generator.parameters())},
            {
                "params": list(self.critic.parameters()),
                "lr": CRITIC_RATE * learning_rate,
                "betas": (0.5, 0.99),
            },
        ]

    def draw(self, task: Task) -> Tensor:
        """Draw latents [B, T, C, h, w] as the world does; only the sampler's last step keeps gradients."""
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

        patch = self.config.generator.patch_hw
        return draw_latents(velocity, task.start, task.fraction, patch, self.config.sampler)

    def forward(self, task: Task, noise: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of a task; `noise` [2, B, T, C, h, w] measures the critic's slope."""
        drawn = self.draw(task)
        imagined = task.imagined
        cells = imagined.flatten(0, 1)
        error = cell_error(drawn, task.target, imagined)
        # in known cells the critic sees the same in both
        true = torch.where(imagined > 0, task.target, drawn.detach()).flatten(0, 1)
        made = drawn.detach().flatten(0, 1)
        said_made, said_true = self.critic(made, cells), self.critic(true, cells)
        followed = self._follow(drawn, said_true, cells)
        judged = mean_over_imagined(_pair(said_true, said_made), cells)
        slope = noise.new_zeros(())
        for latents, said, shift in ((made, said_made, noise[0]), (true, said_true, noise[1])):
            beside = self.critic(latents + SLOPE_STEP * shift.flatten(0, 1) * cells, cells)
            change = [(one - other).square() for one, other in zip(beside, said, strict=True)]
            slope = slope + mean_over_imagined(change, cells)
        figures = {
            "error": float(error.detach()),
            "critic": float(judged.detach()),
            "slope": float(slope.detach()),
        }
        return error + followed + judged + SLOPE * slope, figures

    def _follow(self, drawn: Tensor, said_true: list[Tensor], cells: Tensor) -> Tensor:
        """Scalar whose gradient is the critic's verdict on `drawn`, scaled to a squared error of 1."""
        shown = drawn.detach().requires_grad_()
        frozen = {name: parameter.detach() for name, parameter in self.critic.named_parameters()}
        said_made = functional_call(self.critic, frozen, (shown.flatten(0, 1), cells))
        verdict = mean_over_imagined(_pair(said_made, [said.detach() for said in said_true]), cells)
        (wish,) = torch.autograd.grad(verdict, shown)
        wish = wish * (cells.view(*drawn.shape[:2], *cells.shape[1:]) > 0)
        size = 2.0 / (cells.sum() * drawn.shape[2]).clamp(min=1.0).sqrt()
        wish = ADVERSARIAL * size * wish / wish.norm().clamp(min=1e-12)
        followed: Tensor = ((drawn - drawn.detach()) * wish).sum()
        return followed


def _pair(higher: list[Tensor], lower: list[Tensor]) -> list[Tensor]:
    """Loss maps that want the first scores above the second ones."""
    return [F.softplus(other - one) for one, other in zip(higher, lower, strict=True)]


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
            result: tuple[Tensor, dict[str, float]] = module(task, torch.from_numpy(noise).to(model.device))
            return result

        return loss

    def validate(_: nn.Module) -> dict[str, float]:
        error = cells = 0.0
        steps = [0.0, 0.0]
        for index in range(VALIDATION_BATCHES):
            rng = np.random.default_rng([7, index])
            task = make_task(model, draw_sample(held_out, config.batch_size, drawn, rng), rng, from_noise=0.0)
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                made = polish.draw(task)
            imagined = task.imagined
            error += float(((made - task.target).square().mean(dim=2, keepdim=True) * imagined).sum())
            cells += float(imagined.sum())
            both = imagined[..., 1:] * imagined[..., :-1]
            for place, latents in enumerate((made, task.target)):
                steps[place] += float((latents.diff(dim=-1).square() * both).sum())
        return {
            "validation_imagined": error / max(cells, 1.0),
            "validation_contrast": steps[0] / max(steps[1], 1e-6),
        }

    run_stage("polish", polish, batch_loss, config, out, validate, polish.groups(config.learning_rate))
    model.requires_grad_(False)
