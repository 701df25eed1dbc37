"""Codec of the counts: parameters and operations of the Wan2.2 autoencoder, written out layer by layer.

It works in calls: the first holds one frame, each later one the four frames of a latent one, with what it
remembers of the frames before. Layers that halve or double the time do not run in the first call.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any

from mirage_sim.errors import InputError
from mirage_sim.model.meter import Flops

_GROUP = 4  # frames of a later call


@dataclass(frozen=True)
class CodecShape:
    """Shape of the autoencoder; the defaults are those of Wan2.2-TI2V-5B.

    Attributes:
        base_dim: Channels of the encoder's first level.
        decoder_base_dim: Channels of the decoder's last level.
        z_dim: Latent channels.
        dim_mult: Channels of the levels, in multiples of the first.
        num_res_blocks: Residual blocks of a level of the encoder; the decoder has one more.
        temperal_downsample: Whether the step behind a level halves the time, too (as diffusers spells it).
        in_channels: Channels of a picture once its pixels are folded.
        out_channels: The same for the decoder.
        patch_size: Pixels per side that are folded into channels.
        scale_factor_spatial: Pixels per side of a cell.
    """

    base_dim: int = 160
    decoder_base_dim: int = 256
    z_dim: int = 48
    dim_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    temperal_downsample: tuple[bool, ...] = (False, True, True)
    in_channels: int = 12
    out_channels: int = 12
    patch_size: int = 2
    scale_factor_spatial: int = 16

    @classmethod
    def of(cls, config: Any) -> CodecShape:
        """Take the shape from a configuration of diffusers' `AutoencoderKLWan`.

        Args:
            config: With residual up and down blocks, as Wan2.2 has them.

        Returns:
            The shape.

        Raises:
            InputError: If the blocks are those of Wan2.1.
        """
        if not config.is_residual:
            raise InputError(f"config must have is_residual, got {config.is_residual}")
        values: dict[str, Any] = {each.name: getattr(config, each.name) for each in fields(cls)}
        values |= {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return cls(**values)


@dataclass(frozen=True)
class Layer:
    """One convolution in one call.

    Attributes:
        inputs: Channels it reads; 0 for a norm, which has one parameter a channel and is not counted.
        outputs: Channels it writes.
        kernel: Positions of its kernel.
        positions: Outputs a channel.
    """

    inputs: int
    outputs: int
    kernel: int
    positions: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.inputs * self.outputs * self.kernel + self.outputs

    @property
    def flops(self) -> int:
        """Products and sums."""
        return 2 * self.inputs * self.outputs * self.kernel * self.positions


def encoder_parameters(shape: CodecShape) -> int:
    """Parameters of the encoder and the convolution behind it."""
    return sum(layer.parameters for layer in _encoder(shape, _GROUP, (1, 1)))


def decoder_parameters(shape: CodecShape) -> int:
    """Parameters of the decoder and the convolution before it."""
    return sum(layer.parameters for layer in _decoder(shape, False, (1, 1)))


def encode_flops(shape: CodecShape, frames: int, cells: tuple[int, int]) -> Flops:
    """Operations of encoding 1 + 4k pictures.

    Args:
        shape: Of the autoencoder.
        frames: How many, 1 + 4k.
        cells: Rows and columns of a latent frame.

    Returns:
        The operations by kind.

    Raises:
        InputError: If `frames` is not 1 + 4k.

    Source: ours, from the published architecture.
    """
    if frames < 1 or frames % _GROUP != 1:
        raise InputError(f"frames must be 1 + {_GROUP}k, got {frames}")
    later = (frames - 1) // _GROUP
    first, each = (sum(layer.flops for layer in _encoder(shape, n, cells)) for n in (1, _GROUP))
    wide = shape.base_dim * shape.dim_mult[-1]
    return Flops(attention=_attention(wide, cells) * (1 + later), convolution=first + later * each)


def decode_flops(shape: CodecShape, latent_frames: int, cells: tuple[int, int]) -> Flops:
    """Operations of decoding latent frames to 1 + 4k pictures.

    Args:
        shape: Of the autoencoder.
        latent_frames: How many, those that only tell what came before included.
        cells: Rows and columns of a latent frame.

    Returns:
        The operations by kind.

    Source: ours, from the published architecture.
    """
    first, each = (sum(layer.flops for layer in _decoder(shape, n, cells)) for n in (True, False))
    wide = shape.decoder_base_dim * shape.dim_mult[-1]
    return Flops(
        attention=_attention(wide, cells) * latent_frames, convolution=first + (latent_frames - 1) * each
    )


def tiled_decode_flops(
    shape: CodecShape, latent_frames: int, cells: tuple[int, int], tile: int, stride: int
) -> Flops:
    """Operations of decoding tile by tile, if one does not do; where tiles overlap, all of them count.

    Args:
        shape: Of the autoencoder.
        latent_frames: How many.
        cells: Rows and columns of a latent frame.
        tile: Cells per side of a tile; those at the far edges are cut.
        stride: Cells from one tile to the next.

    Returns:
        The operations by kind.
    """
    if max(cells) <= tile:
        return decode_flops(shape, latent_frames, cells)
    heights, widths = ([min(tile, n - at) for at in range(0, n, stride)] for n in cells)
    flops = Flops()
    for height in heights:
        for width in widths:
            flops += decode_flops(shape, latent_frames, (height, width))
    return flops


def _encoder(shape: CodecShape, frames: int, cells: tuple[int, int]) -> Iterator[Layer]:
    """Layers of one call with 1 or 4 frames."""
    first, widths = frames == 1, [shape.base_dim * m for m in (1, *shape.dim_mult)]
    area = cells[0] * cells[1] * 4 ** (len(shape.dim_mult) - 1)
    yield Layer(shape.in_channels, widths[0], 27, frames * area)
    for level, (inputs, outputs) in enumerate(pairwise(widths)):
        for block in range(shape.num_res_blocks):
            yield from _residual(outputs if block else inputs, outputs, frames * area)
        if level < len(shape.dim_mult) - 1:
            area //= 4
            yield Layer(outputs, outputs, 9, frames * area)
            if shape.temperal_downsample[level] and not first:
                frames //= 2
                yield Layer(outputs, outputs, 3, frames * area)
    yield from _middle(widths[-1], frames * area)
    yield Layer(0, widths[-1], 0, 0)
    yield Layer(widths[-1], 2 * shape.z_dim, 27, frames * area)
    yield Layer(2 * shape.z_dim, 2 * shape.z_dim, 1, frames * area)


def _decoder(shape: CodecShape, first: bool, cells: tuple[int, int]) -> Iterator[Layer]:
    """Layers of one call, which takes one latent frame."""
    multiples = shape.dim_mult[::-1]
    widths = [shape.decoder_base_dim * m for m in (multiples[0], *multiples)]
    doubles = shape.temperal_downsample[::-1]
    frames, area = 1, cells[0] * cells[1]
    yield Layer(shape.z_dim, shape.z_dim, 1, area)
    yield Layer(shape.z_dim, widths[0], 27, area)
    yield from _middle(widths[0], area)
    for level, (inputs, outputs) in enumerate(pairwise(widths)):
        for block in range(shape.num_res_blocks + 1):
            yield from _residual(outputs if block else inputs, outputs, frames * area)
        if level < len(multiples) - 1:
            if doubles[level] and not first:
                yield Layer(outputs, 2 * outputs, 3, frames * area)
                frames *= 2
            area *= 4
            yield Layer(outputs, outputs, 9, frames * area)
    yield Layer(0, widths[-1], 0, 0)
    yield Layer(widths[-1], shape.out_channels, 27, frames * area)


def _residual(inputs: int, outputs: int, positions: int) -> Iterator[Layer]:
    """Two norms and convolutions, and one of the shortcut where channels change."""
    yield Layer(0, inputs, 0, 0)
    yield Layer(inputs, outputs, 27, positions)
    yield Layer(0, outputs, 0, 0)
    yield Layer(outputs, outputs, 27, positions)
    if inputs != outputs:
        yield Layer(inputs, outputs, 1, positions)


def _middle(channels: int, positions: int) -> Iterator[Layer]:
    """Two residual blocks and attention between them."""
    yield from _residual(channels, channels, positions)
    yield Layer(0, channels, 0, 0)
    yield Layer(channels, 3 * channels, 1, positions)
    yield Layer(channels, channels, 1, positions)
    yield from _residual(channels, channels, positions)


def _attention(channels: int, cells: tuple[int, int]) -> int:
    """Every cell of one latent frame over all others, one head."""
    return 4 * (cells[0] * cells[1]) ** 2 * channels
