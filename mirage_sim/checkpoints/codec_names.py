"""Codec names: the Wan2.2 VAE in its published file and as diffusers' `AutoencoderKLWan`.

Source: parameter names and latent statistics of the published `Wan2.2_VAE.pth`, and diffusers' class.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from mirage_sim.checkpoints.names import Names, inverse, swap
from mirage_sim.errors import FileFormatError

LATENTS_MEAN = (
    *(-0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813, 0.0891),
    *(0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108, -0.2158, 0.2502),
    *(-0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313, -0.1649, 0.0117, 0.0723),
    *(-0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944, 0.3573, -0.0548, -0.1681, -0.0667),
)
"""Mean of every latent channel; the published file does not hold it."""
LATENTS_STD = (
    *(0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901),
    *(0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659),
    *(0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944),
    *(0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744),
)
"""Standard deviation of every latent channel."""

PREFIXES = ("module.", "model.")
_RESIDUAL = {
    "residual.0": "norm1",
    "residual.2": "conv1",
    "residual.3": "norm2",
    "residual.6": "conv2",
    "shortcut": "conv_shortcut",
}
_SIDES = {"encoder": ("downsamples", "down", 0), "decoder": ("upsamples", "up", 1)}


def codec_names(levels: int, blocks: int) -> Names:
    """Names of a VAE of a given depth.

    Args:
        levels: Resolutions of encoder and decoder.
        blocks: Residual blocks of a level of the encoder; the decoder has one more.

    Returns:
        The mapping.
    """
    table = {"conv1": "quant_conv", "conv2": "post_quant_conv"}
    for side, (outer, direction, more) in _SIDES.items():
        table |= {
            f"{side}.conv1": f"{side}.conv_in",
            f"{side}.head.0": f"{side}.norm_out",
            f"{side}.head.2": f"{side}.conv_out",
        }
        for layer in ("norm", "to_qkv", "proj"):
            table[f"{side}.middle.1.{layer}"] = f"{side}.mid_block.attentions.0.{layer}"
        residual = {f"{side}.middle.{2 * index}": f"{side}.mid_block.resnets.{index}" for index in (0, 1)}
        for level in range(levels):
            stored, ours = f"{side}.{outer}.{level}.{outer}", f"{side}.{direction}_blocks.{level}"
            residual |= {f"{stored}.{index}": f"{ours}.resnets.{index}" for index in range(blocks + more)}
            for layer in ("resample.1", "time_conv"):
                table[f"{stored}.{blocks + more}.{layer}"] = f"{ours}.{direction}sampler.{layer}"
        for stored, ours in residual.items():
            table |= {f"{stored}.{layer}": f"{ours}.{name}" for layer, name in _RESIDUAL.items()}
    back = inverse(table)
    return Names(PREFIXES, lambda name: swap(name, table), lambda name: swap(name, back))


def codec_depth(tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Levels and residual blocks of the VAE in a published file.

    Args:
        tensors: By the names in the file.

    Returns:
        Levels, and residual blocks of a level of the encoder.

    Raises:
        FileFormatError: If it is not of Wan2.2's kind.
    """
    found = [
        (int(match[1]), int(match[2]))
        for name in tensors
        if (match := re.search(r"encoder\.downsamples\.(\d+)\.downsamples\.(\d+)\.residual\.", name))
    ]
    if not found:
        raise FileFormatError(
            "codec must be the VAE of Wan2.2 with encoder.downsamples.0.downsamples.0.residual and so on, "
            f"got {sorted(tensors)[:3]} and others (that of Wan2.1 is read from a diffusers folder only)"
        )
    return 1 + max(level for level, _ in found), 1 + max(block for _, block in found)


def codec_config(tensors: Mapping[str, Tensor], levels: int, blocks: int) -> dict[str, Any]:
    """Arguments of `AutoencoderKLWan` that the tensors of a published file tell.

    Args:
        tensors: By our names.
        levels: Resolutions of encoder and decoder.
        blocks: Residual blocks of a level of the encoder.

    Returns:
        The arguments; the latent statistics are the published ones.

    Raises:
        FileFormatError: If tensors that tell the shape are missing or have other than 48 latent channels.
    """
    widths = [f"encoder.down_blocks.{level}.resnets.0.conv1.weight" for level in range(levels)]
    needed = ["encoder.conv_in.weight", "decoder.conv_out.weight", "post_quant_conv.weight", *widths]
    missing = [name for name in needed if name not in tensors or 0 in tensors[name].shape]
    missing += [name for name in needed if name not in missing and tensors[name].ndim != 5]
    if missing:
        raise FileFormatError(f"codec must hold {needed} with 5 dimensions, lacks {missing}")
    first, last = tensors["encoder.conv_in.weight"].shape, tensors["decoder.conv_out.weight"].shape
    channels = tensors["post_quant_conv.weight"].shape[0]
    if channels != len(LATENTS_MEAN):
        raise FileFormatError(
            f"codec must have {len(LATENTS_MEAN)} latent channels, whose statistics are known, got {channels}"
        )
    patch = round((first[1] / 3) ** 0.5)
    in_time = [
        f"encoder.down_blocks.{level}.downsampler.time_conv.weight" in tensors for level in range(levels - 1)
    ]
    return {
        "base_dim": first[0],
        "decoder_base_dim": last[1],
        "z_dim": channels,
        "dim_mult": [tensors[name].shape[0] // first[0] for name in widths],
        "num_res_blocks": blocks,
        "attn_scales": [],
        "temperal_downsample": in_time,
        "is_residual": True,
        "in_channels": first[1],
        "out_channels": last[0],
        "patch_size": patch,
        "scale_factor_temporal": 2 ** sum(in_time),
        "scale_factor_spatial": patch * 2 ** (levels - 1),
        "latents_mean": list(LATENTS_MEAN),
        "latents_std": list(LATENTS_STD),
    }
