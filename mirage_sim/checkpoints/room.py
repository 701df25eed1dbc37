"""Room: what a full-size model needs of a card, counted before it is loaded.

Weights, and what a step keeps alive beside them at its worst moment, from networks without values. Workspaces
of kernels and what an allocator rounds up come on top: on an H100, measured peaks were up to 4 % higher.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from mirage_sim.checkpoints.checkpoint import Checkpoint
from mirage_sim.checkpoints.shapes import empty_codec
from mirage_sim.errors import InputError
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.full_size import loaded_shape
from mirage_sim.model.generator import Generator, empty_generator
from mirage_sim.model.meter import measure
from mirage_sim.model.offload import waiting_bytes
from mirage_sim.model.world_model import WorldModelConfig


def needed_bytes(
    checkpoint: Checkpoint,
    config: WorldModelConfig,
    dtype: torch.dtype,
    tiling: bool = False,
    offload: str | None = None,
) -> int:
    """Count the bytes that a world takes on the card; text encoder and depth estimator are not among them.

    Args:
        checkpoint: Tells shapes.
        config: Size and length of a step.
        dtype: Of the large weights.
        tiling: Whether pictures are decoded in tiles.
        offload: What waits in the host's memory, see `model/offload.py`.

    Returns:
        Weights that are there together, and the most that a pass or a decoding keeps alive.
    """
    generator = loaded_shape(checkpoint.config, dtype)
    codec = WanCodec(empty_codec("checkpoint", checkpoint.codec_config)).to("meta", dtype)
    one_pass, decoding = pass_bytes(generator, codec, config), decode_bytes(codec, config, tiling)
    shapes = dict(checkpoint.parts)
    shapes["branch"] = checkpoint.branch or empty_generator(checkpoint.config).branch.state_dict()
    weights = {name: _bytes(part, dtype) for name, part in shapes.items()}
    denoises = sum(weights.values()) - weights["codec"]
    if offload == "networks":
        return weights["codec"] + max(denoises + one_pass, decoding)
    if offload == "blocks":
        denoises -= waiting_bytes([_bytes(block.state_dict(), dtype) for block in generator.blocks])
    return weights["codec"] + denoises + max(one_pass, decoding)


def pass_bytes(generator: Generator, codec: WanCodec, config: WorldModelConfig) -> int:
    """What the largest pass of a step keeps alive, of a generator without values."""
    shape, channels = config.generator, codec.channels
    cells = (config.height // codec.spatial_stride, config.width // codec.spatial_stride)

    def frames(count: int, width: int = channels) -> Tensor | None:
        return torch.empty(1, count, width, *cells, device="meta", dtype=torch.float32) if count else None

    target = config.overlap + config.segment_length
    hinted = target + (config.preceding if config.hint_preceding else 0)
    given = (
        frames(target),
        torch.empty(1, target, *generator.token_grid(cells), device="meta", dtype=torch.float32),
        torch.empty(1, max(1, config.prompt_tokens), shape.context_dim, device="meta", dtype=torch.float32),
        frames(config.preceding),
        frames(config.references),
        frames(hinted, shape.condition_channels),
    )
    return measure(lambda: generator(*given), generator.parameters()).peak_bytes


def decode_bytes(codec: WanCodec, config: WorldModelConfig, tiling: bool) -> int:
    """What the decoding of a step keeps alive, of a codec without values; a bound for tiles."""
    stride, autoencoder = codec.spatial_stride, codec.autoencoder
    height, width, beside = config.height, config.width, 0
    if tiling:  # tiles overlap: kept in half precision, joined, and once more in 32 bit
        height = min(height, autoencoder.tile_sample_min_height)
        width = min(width, autoencoder.tile_sample_min_width)
        pictures = 1 + codec.temporal_stride * (config.before + config.segment_length - 1)
        beside = 12 * pictures * 3 * config.height * config.width
    latents, before = (
        torch.empty(
            1, count, codec.channels, height // stride, width // stride, device="meta", dtype=torch.float32
        )
        for count in (config.segment_length, config.before)
    )
    return beside + measure(lambda: codec.decode(latents, before), codec.parameters()).peak_bytes


def check_room(needed: int, free: int, config: WorldModelConfig) -> None:
    """Raise unless a model fits.

    Args:
        needed: Bytes, see `needed_bytes`.
        free: Bytes that the device has free.
        config: What was counted.

    Raises:
        InputError: If it does not.
    """
    if needed > free:
        raise InputError(
            f"device must have {needed / 2**30:.2f} GiB free for weights and {config.segment_length} "
            f"latent frames of {config.height}x{config.width}, got {free / 2**30:.2f} GiB: smaller pictures, "
            'tiling=True, offload="networks" or offload="blocks" take less'
        )


def _bytes(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> int:
    return sum(tensor.numel() for tensor in tensors.values()) * dtype.itemsize
