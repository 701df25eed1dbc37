"""The Wan2.2 video autoencoder on a whole clip at once, from the tensors of a state dict alone.

Written from: the Wan report (arXiv 2503.20314, spatio-temporal variational autoencoder: causal 3D
convolutions, the first frame stands alone, later ones come in fours) and what Wan2.2 adds to it: 2x2 pixels
folded into channels, and shortcuts around every change of resolution that move space and time into channels
and average them, or repeat channels and move them back (as in DC-AE, arXiv 2410.10733). The report runs its
convolutions piece by piece on cached features; here every layer sees all frames of the clip at once.
Tensors are [B, C, F, H, W] but for the frames and latents at both ends.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from tests.oracles.compare import Weights, part
from tests.oracles.wan_transformer import silu

SLOWER = (False, True, True)  # levels of the encoder after which there are half as many frames
SHRINKS = 3  # levels after which a frame has half as many rows and columns
FOLD = 2


def convolve(weights: Weights, x: Tensor, stride: int = 1, causal: bool = True) -> Tensor:
    """3D convolution; in time zeros stand before the first frame, in space around the frame."""
    kernel = weights["weight"]
    rows, columns = kernel.shape[-2] // 2, kernel.shape[-1] // 2
    before = kernel.shape[2] - 1 if causal else 0
    padded = functional.pad(x, (columns, columns, rows, rows, before, 0))
    return functional.conv3d(padded, kernel, weights["bias"], stride=(stride, 1, 1))


def norm(gain: Tensor, x: Tensor) -> Tensor:
    """Root mean square over channels, at every place on its own."""
    return gain.flatten()[:, None, None, None] * x / x.square().mean(dim=1, keepdim=True).sqrt()


def residual(weights: Weights, x: Tensor) -> Tensor:
    inner = convolve(part(weights, "conv1"), silu(norm(weights["norm1.gamma"], x)))
    inner = convolve(part(weights, "conv2"), silu(norm(weights["norm2.gamma"], inner)))
    shortcut = part(weights, "conv_shortcut")
    return inner + (convolve(shortcut, x) if shortcut else x)


def residuals(weights: Weights, x: Tensor) -> Tensor:
    """All residual blocks of a level, in order."""
    for index in range(len({name.split(".")[0] for name in part(weights, "resnets")})):
        x = residual(part(weights, f"resnets.{index}"), x)
    return x


def attend(weights: Weights, x: Tensor) -> Tensor:
    """Every place looks at all places of its own frame, one head."""
    channels, height, width = x.shape[1], *x.shape[-2:]
    cells = norm(weights["norm.gamma"], x).movedim(1, -1).flatten(2, 3)  # [B, F, H*W, C]
    both = weights["to_qkv.weight"].flatten(1), weights["to_qkv.bias"]
    query, key, value = (cells @ both[0].T + both[1]).unflatten(-1, (3, -1)).unbind(-2)
    weight = torch.softmax(query @ key.transpose(-1, -2) / channels**0.5, dim=-1)
    seen = (weight @ value) @ weights["proj.weight"].flatten(1).T + weights["proj.bias"]
    return x + seen.unflatten(2, (height, width)).movedim(-1, 1)


def middle(weights: Weights, x: Tensor) -> Tensor:
    x = attend(part(weights, "attentions.0"), residual(part(weights, "resnets.0"), x))
    return residual(part(weights, "resnets.1"), x)


def each_frame(weights: Weights, x: Tensor, stride: int, pad: tuple[int, int, int, int]) -> Tensor:
    """2D convolution of all frames on their own."""
    padded = functional.pad(x, (*pad, 0, 0))
    return functional.conv3d(
        padded, weights["weight"][:, :, None], weights["bias"], stride=(1, stride, stride)
    )


def shrink(weights: Weights, x: Tensor) -> Tensor:
    """Halve rows and columns; with `time_conv`, frames too: the first stays, each later one sees three."""
    x = each_frame(part(weights, "resample.1"), x, stride=2, pad=(0, 1, 0, 1))
    slower = part(weights, "time_conv")
    if not slower or x.shape[2] == 1:
        return x
    return torch.cat([x[:, :, :1], convolve(slower, x, stride=2, causal=False)], dim=2)


def grow(weights: Weights, x: Tensor) -> Tensor:
    """Double rows and columns; with `time_conv`, frames too: all but the first, which no later one sees."""
    faster = part(weights, "time_conv")
    if faster and x.shape[2] > 1:
        pairs = convolve(faster, x[:, :, 1:]).unflatten(1, (2, -1))  # [B, 2, C, F-1, H, W]
        x = torch.cat([x[:, :, :1], pairs.movedim(1, 3).flatten(2, 3)], dim=2)
    x = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    return each_frame(part(weights, "resample.1"), x, stride=1, pad=(1, 1, 1, 1))


def average_down(x: Tensor, channels: int, time: int, space: int) -> Tensor:
    """Move time and space into channels, average neighbouring ones; a zero frame stands before the first."""
    x = functional.pad(x, (0, 0, 0, 0, time - 1, 0))
    moved = [
        x[:, :, t::time, row::space, column::space]
        for t in range(time)
        for row in range(space)
        for column in range(space)
    ]
    return torch.stack(moved, dim=2).flatten(1, 2).unflatten(1, (channels, -1)).mean(dim=2)


def repeat_up(x: Tensor, channels: int, time: int) -> Tensor:
    """Repeat channels and move them into time and space; the first frame keeps only its last copy."""
    batch, before, frames, height, width = x.shape
    x = x.repeat_interleave(channels * time * 4 // before, dim=1).unflatten(1, (channels, time, 2, 2))
    moved = x.new_empty(batch, channels, frames * time, 2 * height, 2 * width)
    for t in range(time):
        for row in range(2):
            for column in range(2):
                moved[:, :, t::time, row::2, column::2] = x[:, :, t, row, column]
    return moved[:, :, time - 1 :]


def fold(video: Tensor) -> Tensor:
    """2x2 pixels into channels, columns before rows."""
    parts = [video[..., row::FOLD, column::FOLD] for column in range(FOLD) for row in range(FOLD)]
    return torch.stack(parts, dim=2).flatten(1, 2)


def unfold(x: Tensor) -> Tensor:
    """The way back."""
    parts = x.unflatten(1, (-1, FOLD, FOLD))
    video = x.new_empty(x.shape[0], parts.shape[1], x.shape[2], FOLD * x.shape[3], FOLD * x.shape[4])
    for column in range(FOLD):
        for row in range(FOLD):
            video[..., row::FOLD, column::FOLD] = parts[:, :, column, row]
    return video


def encode(weights: Weights, frames: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Frames [B, 1 + 4k, 3, H, W] to the means of their latents [B, 1 + k, C, H/16, W/16], normalised."""
    encoder = part(weights, "encoder")
    x = convolve(part(encoder, "conv_in"), fold(frames.transpose(1, 2)))
    for level in range(SHRINKS + 1):
        down = part(encoder, f"down_blocks.{level}")
        inner = residuals(down, x)
        if level < SHRINKS:
            time = 2 if SLOWER[level] else 1
            x = shrink(part(down, "downsampler"), inner) + average_down(x, inner.shape[1], time, 2)
        else:
            x = inner + average_down(x, inner.shape[1], 1, 1)
    x = silu(norm(encoder["norm_out.gamma"], middle(part(encoder, "mid_block"), x)))
    both = convolve(part(weights, "quant_conv"), convolve(part(encoder, "conv_out"), x))
    latents = both[:, : both.shape[1] // 2].transpose(1, 2)  # the other half tells the spread
    return (latents - mean[:, None, None]) / std[:, None, None]


def decode(weights: Weights, latents: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Normalised latents [B, 1 + k, C, h, w] to frames [B, 1 + 4k, 3, 16h, 16w], clipped to [-1, 1]."""
    decoder = part(weights, "decoder")
    raw = (latents * std[:, None, None] + mean[:, None, None]).transpose(1, 2)
    x = convolve(part(decoder, "conv_in"), convolve(part(weights, "post_quant_conv"), raw))
    x = middle(part(decoder, "mid_block"), x)
    for level in range(SHRINKS + 1):
        up = part(decoder, f"up_blocks.{level}")
        inner = residuals(up, x)
        if level < SHRINKS:
            time = 2 if SLOWER[-1 - level] else 1
            x = grow(part(up, "upsampler"), inner) + repeat_up(x, inner.shape[1], time)
        else:
            x = inner
    x = convolve(part(decoder, "conv_out"), silu(norm(decoder["norm_out.gamma"], x)))
    return unfold(x).transpose(1, 2).clamp(-1.0, 1.0)
