"""Critic: tells the truth from what was made, for the stages whose result should look like the truth.

It compares each made sample with the true one of the same conditions and gives a verdict for every place of
its grids, fine and coarse. A network that guesses the mean of what could be there loses this contest.

Source: the relativistic loss with both penalties is that of R3GAN (arXiv 2501.05441); the penalties are
approximated by small disturbances as in Seaweed-APT (arXiv 2501.08316).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import adaptive_avg_pool2d, leaky_relu, pixel_unshuffle, softplus

from mirage_sim.training.loop import StageConfig

CRITIC_RATE = 15.0  # learning rate over the maker's: a critic that lags behind teaches noise


@dataclass(frozen=True)
class CriticConfig:
    """Shape of a critic.

    Attributes:
        channels: Channels of what is judged.
        told: Channels of what it is told of the conditions, on the same grid.
        widths: Channels of the hidden layers; each level has half the rows and columns of the one before.
        blocks: Residual blocks of two 3x3 convolutions at every level.
        unshuffle: Rows and columns of input cells folded into one cell of the finest level.
        penalty: Weight of the penalties on steep verdicts.
        jitter: Standard deviation of the disturbances that measure the steepness.
    """

    channels: int
    told: int = 0
    widths: tuple[int, ...] = field(default=(96, 160, 224))
    blocks: int = 2
    unshuffle: int = 1
    penalty: float = 0.5
    jitter: float = 0.1


class Losses(NamedTuple):
    """Outcome of a contest: scalars.

    Attributes:
        maker: Small where what was made is judged truer than the truth; gradients reach only the maker.
        critic: Small where the critic tells them apart; gradients reach only the critic.
        lead: By how much the critic prefers the truth.
        steepness: Mean squared slope of its verdicts.
    """

    maker: Tensor
    critic: Tensor
    lead: Tensor
    steepness: Tensor


class _Block(nn.Module):
    """Residual block without normalisation, at first the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.there = nn.Conv2d(width, width, 3, padding=1)
        self.back = nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.back.weight)
        nn.init.zeros_(self.back.bias)  # type: ignore[arg-type]

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.back(leaky_relu(self.there(leaky_relu(hidden, 0.2)), 0.2))  # type: ignore[no-any-return]


class Critic(nn.Module):
    """A residual convolutional network with verdicts at every level."""

    def __init__(self, config: CriticConfig) -> None:
        """Build the network.

        Args:
            config: Its shape.
        """
        super().__init__()
        self.config = config
        widths = config.widths
        folded = (config.channels + config.told) * config.unshuffle**2
        self.first = nn.Conv2d(folded, widths[0], 3, padding=1)
        self.levels = nn.ModuleList(
            nn.Sequential(*(_Block(width) for _ in range(config.blocks))) for width in widths
        )
        self.shrink = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairwise(widths))
        self.verdicts = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in widths)

    def forward(self, judged: Tensor, told: Tensor | None = None) -> list[Tensor]:
        """Judge samples.

        Args:
            judged: [N, channels, h, w].
            told: [N, told, h, w], or `None` where the critic is told nothing.

        Returns:
            Logits, float32 [N, 1, h', w'] for every level, fine to coarse.
        """
        whole = judged if told is None else torch.cat([judged, told], dim=1)
        hidden = self.first(pixel_unshuffle(whole, self.config.unshuffle))
        logits = []
        for place, level in enumerate(self.levels):
            hidden = level(hidden if place == 0 else self.shrink[place - 1](hidden))
            logits.append(self.verdicts[place](leaky_relu(hidden, 0.2)).float())
        return logits

    def contest(
        self, made: Tensor, true: Tensor, told: Tensor | None, open_: Tensor, jitter: Tensor
    ) -> Losses:
        """Let made samples and true ones of the same conditions compete.

        Args:
            made: [N, channels, h, w]; gradients reach them through `Losses.maker`.
            true: Likewise.
            told: [N, told, h, w] or `None`.
            open_: 1 in cells that could differ, else 0; float32 [N, 1, h, w].
            jitter: Standard normal noise for the first M samples, where steepness is measured,
                [2, M, channels, h, w].

        Returns:
            Both losses.
        """
        size, some, every = self.config.jitter, jitter.shape[1], len(made)
        steps = size * open_[:some] * jitter  # [2, M, channels, h, w]
        judged = torch.cat([made.detach(), true, made.detach()[:some] + steps[0], true[:some] + steps[1]])
        conditions = None if told is None else torch.cat([told, told, told[:some], told[:some]])
        verdicts = [logits.split([every, every, some, some]) for logits in self(judged, conditions)]
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        hoped = functional_call(self, frozen, (made, told))
        parts = []
        for (of_made, of_true, near_made, near_true), hope in zip(verdicts, hoped, strict=True):
            share = adaptive_avg_pool2d(open_, of_made.shape[-2:])
            weight = share / share.sum().clamp(min=1e-6)
            slope = (near_made - of_made[:some]).square() + (near_true - of_true[:some]).square()
            steepness = (weight[:some] * slope).sum() / weight[:some].sum().clamp(min=1e-6) / size**2
            maker, critic = softplus(of_true.detach() - hope), softplus(of_made - of_true)
            sums = [(weight * part).sum() for part in (maker, critic, of_true - of_made)]
            parts.append(torch.stack([*sums, steepness]))
        maker, critic, lead, steepness = torch.stack(parts).mean(dim=0)
        return Losses(
            maker, critic + 0.5 * self.config.penalty * steepness, lead.detach(), steepness.detach()
        )


def contest_config(config: StageConfig) -> StageConfig:
    """Set what a contest asks of the optimiser: no momentum, and weights averaged for longer."""
    return replace(config, betas=(0.0, 0.99), clip=10.0, ema=0.999)


def contest_groups(maker: nn.Module, critic: nn.Module, config: StageConfig) -> list[dict[str, Any]]:
    """Parameter groups of both sides, each with its rate."""
    trained = [parameter for parameter in maker.parameters() if parameter.requires_grad]
    rate = config.learning_rate
    return [{"params": trained, "lr": rate}, {"params": [*critic.parameters()], "lr": CRITIC_RATE * rate}]
