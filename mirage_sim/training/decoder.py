"""Stage 10: the decoder alone learns to draw sharper, against a critic; the latents stay.

Source: ours; for the critic see `critic.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.model.codec import EmbeddedCodec
from mirage_sim.training.codec import (
    CROP,
    LATENT_NOISE,
    frames_on,
    random_images,
    reconstruction_loss,
    validation_figures,
)
from mirage_sim.training.critic import Critic, CriticConfig, contest_config, contest_groups
from mirage_sim.training.data import Clips
from mirage_sim.training.loop import BatchLoss, StageConfig, run_stage

CRITIC_WEIGHT = 0.01


class _Contest(nn.Module):
    """Decoder against critic."""

    def __init__(self, codec: EmbeddedCodec, critic: Critic) -> None:
        super().__init__()
        self.codec = codec
        self.critic = critic

    def forward(self, images: Tensor, noise: Tensor, jitter: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        with torch.no_grad():
            latent = self.codec.autoencoder.encode(images).latent
            spread = latent.float().std(dim=(0, 2, 3), keepdim=True)
        rebuilt = self.codec.autoencoder.decode(latent + LATENT_NOISE * spread * noise).sample.float()
        everywhere = torch.ones_like(images[:, :1])
        losses = self.critic.contest(rebuilt, images, None, everywhere, jitter)
        error = reconstruction_loss(rebuilt, images)
        figures = {"reconstruction": error, **losses._asdict()}
        loss = error + CRITIC_WEIGHT * losses.maker + losses.critic
        return loss, {name: value.detach() for name, value in figures.items()}


def train_decoder(
    codec: EmbeddedCodec,
    clips: Clips,
    held_out: Clips,
    config: StageConfig,
    out: Path,
    critic: CriticConfig | None = None,
) -> None:
    """Train the decoder in place; the critic is thrown away.

    Args:
        codec: Codec that stage 1 trained.
        clips: Training clips.
        held_out: Validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        critic: Shape of the critic.
    """
    codec.requires_grad_(False)
    codec.autoencoder.decoder.requires_grad_(True)
    device = codec.latent_mean.device
    pictures = frames_on(clips, device)
    shape = critic if critic is not None else CriticConfig(3, widths=(64, 128, 192), unshuffle=2)
    contest = _Contest(codec, Critic(shape).to(device))

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, Tensor]]:
            images, chance = random_images(pictures, config.batch_size, rng)
            side = CROP // codec.spatial_stride
            size = (config.batch_size, codec.channels, side, side)
            noise = torch.randn(size, generator=chance, device=device)
            jitter = torch.randn(2, *images.shape, generator=chance, device=device)
            outcome: tuple[Tensor, dict[str, Tensor]] = module(images, noise, jitter)
            return outcome

        return loss

    contest.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    groups = contest_groups(codec.autoencoder.decoder, contest.critic, config)
    run_stage(
        "decoder",
        contest,
        batch_loss,
        contest_config(config),
        out,
        lambda _: validation_figures(codec, held_out),
        groups,
    )
    codec.requires_grad_(False)
