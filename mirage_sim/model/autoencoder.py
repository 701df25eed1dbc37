"""Autoencoder: a small residual convolutional network that compresses a picture eight times a side.

Parameters have the names and shapes of diffusers' `AutoencoderDC` made of residual blocks alone, so that its
weights fit; a test holds the two equal. This one is imported in a third of the time.

Source: DC-AE (arXiv 2410.10733).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage_sim.errors import InputError

EPSILON = 1e-5
FACTOR = 2  # of rows and columns from one level to the next


@dataclass(frozen=True)
class EmbeddedCodecConfig:
    """Shape of the embedded autoencoder.

    Attributes:
        channels: Latent channels C.
        encoder_widths: Channels at strides 1, 2, 4, 8 of the encoder.
        decoder_widths: Channels at strides 1, 2, 4, 8 of the decoder.
        encoder_layers: Residual blocks at each stride; 0 at stride 1 moves straight to stride 2.
        decoder_layers: The same for the decoder.
    """

    channels: int = 32
    encoder_widths: tuple[int, ...] = (32, 64, 128, 256)
    decoder_widths: tuple[int, ...] = (32, 64, 128, 256)
    encoder_layers: tuple[int, ...] = (0, 1, 1, 1)
    decoder_layers: tuple[int, ...] = (0, 1, 2, 1)

    def __post_init__(self) -> None:
        """Check that every tuple has one entry per level."""
        lengths = {
            len(self.encoder_widths),
            len(self.decoder_widths),
            len(self.encoder_layers),
            len(self.decoder_layers),
        }
        if len(lengths) != 1:
            raise InputError(
                f"codec widths and layers must have one entry per level each, got {asdict(self)}"
            )


class ChannelNorm(nn.Module):
    """Root mean square norm over the channels of every cell, with scale and shift."""

    def __init__(self, channels: int) -> None:
        """Start with scale 1 and shift 0.

        Args:
            channels: Of a cell.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, cells: Tensor) -> Tensor:
        """Normalise [N, C, H, W]."""
        power = cells.float().square().mean(dim=1, keepdim=True)  # [N, 1, H, W]
        normal = (cells * torch.rsqrt(power + EPSILON)).to(self.weight.dtype)
        return normal * self.weight[:, None, None] + self.bias[:, None, None]


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, normalised."""

    def __init__(self, width: int) -> None:
        """Build it with random weights.

        Args:
            width: Channels.
        """
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = ChannelNorm(width)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same."""
        changed: Tensor = self.norm(self.conv2(F.silu(self.conv1(hidden))))
        return changed + hidden


class DownBlock(nn.Module):
    """A convolution and a rearrangement of 2x2 cells into channels."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = True) -> None:
        """Build it with random weights.

        Args:
            inputs: Channels that come in.
            outputs: Channels that go out.
            shortcut: Whether means of the cells are added.
        """
        super().__init__()
        self.group = inputs * FACTOR**2 // outputs
        self.shortcut = shortcut
        self.conv = nn.Conv2d(inputs, outputs // FACTOR**2, 3, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', H/2, W/2]."""
        smaller = F.pixel_unshuffle(self.conv(hidden), FACTOR)
        if not self.shortcut:
            return smaller
        return smaller + _grouped_mean(F.pixel_unshuffle(hidden, FACTOR), self.group)


class UpBlock(nn.Module):
    """A convolution and a rearrangement of channels into 2x2 cells."""

    def __init__(self, inputs: int, outputs: int, shortcut: bool = True) -> None:
        """Build it with random weights.

        Args:
            inputs: Channels that come in.
            outputs: Channels that go out.
            shortcut: Whether repeated cells are added.
        """
        super().__init__()
        self.repeats = outputs * FACTOR**2 // inputs
        self.shortcut = shortcut
        self.conv = nn.Conv2d(inputs, outputs * FACTOR**2, 3, 1, 1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, C', 2H, 2W]."""
        larger = F.pixel_shuffle(self.conv(hidden), FACTOR)
        if not self.shortcut:
            return larger
        return larger + F.pixel_shuffle(_repeated(hidden, self.repeats), FACTOR)


def _repeated(hidden: Tensor, times: int) -> Tensor:
    """Every channel so many times: [N, C, H, W] to [N, times * C, H, W]."""
    return hidden.repeat_interleave(times, dim=1, output_size=hidden.shape[1] * times)


def _grouped_mean(hidden: Tensor, size: int) -> Tensor:
    """Mean of every so many channels: [N, size * C, H, W] to [N, C, H, W]."""
    groups: Tensor = hidden.unflatten(1, (-1, size))  # type: ignore[no-untyped-call]
    return groups.mean(dim=2)


class Encoder(nn.Module):
    """From pictures to latents."""

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        """Build it with random weights.

        Args:
            config: Its shape.
        """
        super().__init__()
        widths, layers = config.encoder_widths, config.encoder_layers
        self.conv_in = nn.Conv2d(3, widths[0], 3, 1, 1) if layers[0] else DownBlock(3, widths[1], False)
        levels = []
        for place, (width, count) in enumerate(zip(widths, layers, strict=True)):
            parts: list[nn.Module] = [ResidualBlock(width) for _ in range(count)]
            if place < len(widths) - 1 and count:
                parts.append(DownBlock(width, widths[place + 1]))
            levels.append(nn.Sequential(*parts))
        self.down_blocks = nn.ModuleList(levels)
        self.conv_out = nn.Conv2d(widths[-1], config.channels, 3, 1, 1)
        self.group = widths[-1] // config.channels

    def forward(self, pictures: Tensor) -> Tensor:
        """Map [N, 3, H, W] to [N, C, h, w]."""
        hidden = self.conv_in(pictures)
        for level in self.down_blocks:
            hidden = level(hidden)
        latents: Tensor = self.conv_out(hidden)
        return latents + _grouped_mean(hidden, self.group)


class Decoder(nn.Module):
    """From latents to pictures."""

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        """Build it with random weights.

        Args:
            config: Its shape.
        """
        super().__init__()
        widths, layers = config.decoder_widths, config.decoder_layers
        self.conv_in = nn.Conv2d(config.channels, widths[-1], 3, 1, 1)
        self.repeats = widths[-1] // config.channels
        levels: list[nn.Module] = []
        for place in reversed(range(len(widths))):
            parts: list[nn.Module] = []
            if place < len(widths) - 1 and layers[place]:
                parts.append(UpBlock(widths[place + 1], widths[place]))
            parts += [ResidualBlock(widths[place]) for _ in range(layers[place])]
            levels.insert(0, nn.Sequential(*parts))
        self.up_blocks = nn.ModuleList(levels)
        last = widths[0] if layers[0] else widths[1]
        self.norm_out = ChannelNorm(last)
        self.conv_out = nn.Conv2d(last, 3, 3, 1, 1) if layers[0] else UpBlock(last, 3, False)

    def forward(self, latents: Tensor) -> Tensor:
        """Map [N, C, h, w] to [N, 3, H, W]."""
        hidden = self.conv_in(latents) + _repeated(latents, self.repeats)
        for level in reversed(self.up_blocks):
            hidden = level(hidden)
        pictures: Tensor = self.conv_out(F.relu(self.norm_out(hidden)))
        return pictures


class Autoencoder(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: EmbeddedCodecConfig) -> None:
        """Build both with random weights.

        Args:
            config: Their shape.
        """
        super().__init__()
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return self.encoder.conv_out.weight.dtype

    def encode(self, pictures: Tensor) -> Tensor:
        """Map [N, 3, H, W] to latents [N, C, h, w]."""
        latents: Tensor = self.encoder(pictures)
        return latents

    def decode(self, latents: Tensor) -> Tensor:
        """Map latents [N, C, h, w] to [N, 3, H, W]."""
        pictures: Tensor = self.decoder(latents)
        return pictures

    def forward(self, pictures: Tensor) -> Tensor:
        """Map [N, 3, H, W] to latents and back."""
        return self.decode(self.encode(pictures))
