"""Codec: frames to latents and back. Two implementations behind one protocol.

`EmbeddedCodec` (an autoencoder of residual blocks) compresses 8x in space and not in time; `WanCodec`
(diffusers' `AutoencoderKLWan`) compresses 16x (or 8x) in space and 4x in time: the first latent frame
holds one frame, each later one holds four. Everything downstream asks the codec for its strides.

Source: paper, section on the backbone (Wan2.2 VAE); the embedded codec is ours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from mirage_sim.errors import InputError, check_shape
from mirage_sim.model.autoencoder import Autoencoder, EmbeddedCodecConfig

if TYPE_CHECKING:
    from diffusers import AutoencoderKLWan


class Codec(Protocol):
    """What the world needs from an autoencoder."""

    spatial_stride: int
    temporal_stride: int
    channels: int

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames [B, F, 3, H, W] in [-1, 1] to unit-variance latents [B, T, C, h, w]."""
        ...

    def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Decode latents [B, T, C, h, w] to frames [B, F, 3, H, W]; `context` holds the latents before."""
        ...


class EmbeddedCodec(nn.Module):
    """The small autoencoder with latents normalised to zero mean and unit variance per channel."""

    temporal_stride = 1

    def __init__(self, config: EmbeddedCodecConfig | None = None) -> None:
        """Build the network with random weights.

        Args:
            config: Its shape.
        """
        super().__init__()
        self.config = config if config is not None else EmbeddedCodecConfig()
        levels = len(self.config.encoder_widths)
        self.channels = self.config.channels
        self.spatial_stride = 2 ** (levels - 1)
        self.autoencoder = Autoencoder(self.config)
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer("latent_mean", torch.zeros(self.channels))
        self.register_buffer("latent_std", torch.ones(self.channels))

    def encode(self, frames: Tensor) -> Tensor:
        """Encode frames.

        Args:
            frames: float [B, F, 3, H, W] in [-1, 1]; H and W multiples of the spatial stride.

        Returns:
            Latents [B, F, C, H/8, W/8].

        Raises:
            InputError: If the shape does not fit.
        """
        check_shape("frames", frames, ["B", "F", 3, "H", "W"])
        height, width = frames.shape[-2:]
        if height % self.spatial_stride or width % self.spatial_stride:
            raise InputError(
                f"frames must have H and W divisible by {self.spatial_stride}, got {height}x{width}"
            )
        images = frames.flatten(0, 1).to(self.autoencoder.dtype)
        raw = self.autoencoder.encode(images).float()  # [B*F, C, h, w]
        latents: Tensor = (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]
        return latents.reshape(*frames.shape[:2], *latents.shape[1:])  # [B, F, C, h, w]

    def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Decode latents; frames do not depend on each other, so `context` is not used.

        Args:
            latents: [B, T, C, h, w].
            context: Ignored: this codec has no temporal compression.

        Returns:
            Frames [B, T, 3, 8h, 8w] in about [-1, 1].
        """
        del context
        check_shape("latents", latents, ["B", "T", self.channels, "h", "w"])
        raw = latents * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        frames = self.autoencoder.decode(raw.flatten(0, 1).to(self.autoencoder.dtype)).float()
        return frames.reshape(*latents.shape[:2], *frames.shape[1:])


class WanCodec(nn.Module):
    """`AutoencoderKLWan` with the latent statistics of its configuration."""

    def __init__(self, autoencoder: AutoencoderKLWan) -> None:
        """Wrap a loaded autoencoder.

        Args:
            autoencoder: diffusers' Wan VAE with `latents_mean` and `latents_std` in its configuration.
        """
        super().__init__()
        self.autoencoder = autoencoder
        config = autoencoder.config
        self.channels: int = config.z_dim
        self.spatial_stride: int = config.scale_factor_spatial
        self.temporal_stride: int = config.scale_factor_temporal
        self.latent_mean: Tensor
        self.latent_std: Tensor
        self.register_buffer(
            "latent_mean",
            torch.tensor(config.latents_mean[: self.channels]),
        )
        self.register_buffer("latent_std", torch.tensor(config.latents_std[: self.channels]))

    def encode(self, frames: Tensor) -> Tensor:
        """Encode 1 + 4k frames to 1 + k latent frames.

        Args:
            frames: float [B, F, 3, H, W] in [-1, 1], F = 1 + 4k.

        Returns:
            Latents [B, 1 + k, C, h, w].

        Raises:
            InputError: If F is not 1 + 4k or the shape does not fit.
        """
        check_shape("frames", frames, ["B", "F", 3, "H", "W"])
        if (frames.shape[1] - 1) % self.temporal_stride:
            raise InputError(f"frames must hold 1 + {self.temporal_stride}k frames, got {frames.shape[1]}")
        video = frames.transpose(1, 2).to(self.autoencoder.dtype)  # [B, 3, F, H, W]
        coded = self.autoencoder.encode(video).latent_dist.mode().float()
        raw: Tensor = coded.transpose(1, 2)  # [B, T, C, h, w]
        return (raw - self.latent_mean[:, None, None]) / self.latent_std[:, None, None]

    def decode(self, latents: Tensor, context: Tensor | None = None) -> Tensor:
        """Decode latents; the causal decoder sees `context` first and its frames are dropped.

        Args:
            latents: [B, T, C, h, w].
            context: Latents that come before, [B, P, C, h, w], or `None` at the start of a video.

        Returns:
            Frames [B, F, 3, H, W]: F = 1 + 4(T - 1) without context, 4T with it.
        """
        check_shape("latents", latents, ["B", "T", self.channels, "h", "w"])
        whole = latents if context is None else torch.cat([context, latents], dim=1)
        raw = whole * self.latent_std[:, None, None] + self.latent_mean[:, None, None]
        video: Any = self.autoencoder.decode(raw.transpose(1, 2).to(self.autoencoder.dtype)).sample
        frames: Tensor = video.float().transpose(1, 2)  # [B, F, 3, H, W]
        return frames if context is None else frames[:, -self.temporal_stride * latents.shape[1] :]
