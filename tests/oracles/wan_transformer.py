"""The Wan2.2 video transformer and Mirage's pass through it, from the tensors of a state dict alone.

Written from: the Wan report (arXiv 2503.20314, video diffusion transformer; Wan2.2-TI2V-5B gives every token
its own timestep); adaptive layer norm of DiT (arXiv 2212.09748); RMSNorm (arXiv 1910.07467); rotary positions
(arXiv 2104.09864); the side branch and the sequence of Mirage (arXiv 2606.09828, after VACE, arXiv
2503.07598). Precision is that of the tensors given. S tokens, D width, H heads, d channels of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tests.oracles.compare import Weights, part

EPSILON = 1e-6
FREQUENCIES = 256  # channels of the sinusoidal embedding of a timestep


def linear(weights: Weights, x: Tensor) -> Tensor:
    return x @ weights["weight"].T + weights["bias"]


def silu(x: Tensor) -> Tensor:
    return x / (1.0 + torch.exp(-x))


def gelu(x: Tensor) -> Tensor:
    """The approximation by a tanh."""
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x: Tensor) -> Tensor:
    centred = x - x.mean(dim=-1, keepdim=True)
    return centred / (centred.square().mean(dim=-1, keepdim=True) + EPSILON).sqrt()


def rms_norm(weights: Weights, x: Tensor) -> Tensor:
    return weights["weight"] * x / (x.square().mean(dim=-1, keepdim=True) + EPSILON).sqrt()


def rotate(x: Tensor, positions: Tensor) -> Tensor:
    """Turn neighbouring channels, read as complex numbers, by position times frequency.

    `x` is [B, S, H, d], `positions` [S, 3]. Of the d/2 pairs, d//6 each belong to height and width, the rest
    to time; the frequencies of an axis with n pairs are 10000^(-i/n).
    """
    pairs = x.shape[-1] // 2
    side = x.shape[-1] // 6
    angles = []
    for axis, count in enumerate((pairs - 2 * side, side, side)):
        frequencies = 10000.0 ** (-torch.arange(count, dtype=x.dtype) / count)
        angles.append(torch.outer(positions[:, axis].to(x.dtype), frequencies))
    angle = torch.cat(angles, dim=1)[:, None]  # [S, 1, d/2]
    turn = torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2)


def attention(weights: Weights, x: Tensor, source: Tensor, heads: int, positions: Tensor | None) -> Tensor:
    """Tokens `x` look at tokens `source`; queries and keys are normed over all heads together."""
    query = rms_norm(part(weights, "norm_q"), linear(part(weights, "to_q"), x)).unflatten(-1, (heads, -1))
    key = rms_norm(part(weights, "norm_k"), linear(part(weights, "to_k"), source)).unflatten(-1, (heads, -1))
    value = linear(part(weights, "to_v"), source).unflatten(-1, (heads, -1))
    if positions is not None:
        query, key = rotate(query, positions), rotate(key, positions)
    score = torch.einsum("bshd,bthd->bhst", query, key) / math.sqrt(query.shape[-1])
    weight = torch.exp(score - score.amax(dim=-1, keepdim=True))
    weight = weight / weight.sum(dim=-1, keepdim=True)
    return linear(part(weights, "to_out.0"), torch.einsum("bhst,bthd->bshd", weight, value).flatten(-2))


def block(
    weights: Weights,
    x: Tensor,  # [B, S, D]
    context: Tensor,  # [B, L, D]
    time: Tensor,  # [B, S, 6, D]
    positions: Tensor,  # [S, 3]
    heads: int,
) -> Tensor:
    """Self-attention, cross-attention, feed-forward; shift, scale and gate of the first and last by time."""
    shift, scale, gate, late_shift, late_scale, late_gate = (weights["scale_shift_table"] + time).unbind(2)
    seen = layer_norm(x) * (1.0 + scale) + shift
    x = x + gate * attention(part(weights, "attn1"), seen, seen, heads, positions)
    norm = part(weights, "norm2")
    asking = layer_norm(x) * norm["weight"] + norm["bias"]
    x = x + attention(part(weights, "attn2"), asking, context, heads, None)
    inner = layer_norm(x) * (1.0 + late_scale) + late_shift
    hidden = gelu(linear(part(weights, "ffn.net.0.proj"), inner))
    return x + late_gate * linear(part(weights, "ffn.net.2"), hidden)


def embed_patches(weights: Weights, frames: Tensor) -> Tensor:
    """Frames [B, F, C, h, w] to tokens [B, F * h' * w', D], row by row."""
    kernel = weights["weight"]  # [D, C, 1, q, r]
    rows, columns = kernel.shape[-2:]
    tokens = []
    for frame in range(frames.shape[1]):
        for y in range(0, frames.shape[-2], rows):
            for x in range(0, frames.shape[-1], columns):
                cells = frames[:, frame, :, y : y + rows, x : x + columns]  # [B, C, q, r]
                tokens.append(torch.einsum("bcqr,dcqr->bd", cells, kernel[:, :, 0]) + weights["bias"])
    return torch.stack(tokens, dim=1)


def embed_time(weights: Weights, level: Tensor) -> tuple[Tensor, Tensor]:
    """Noise levels [B, S] in [0, 1] to their embedding [B, S, D] and its six parts [B, S, 6, D]."""
    half = FREQUENCIES // 2
    frequencies = 10000.0 ** (-torch.arange(half, dtype=level.dtype) / half)
    angle = 1000.0 * level[..., None] * frequencies
    waves = torch.cat([angle.cos(), angle.sin()], dim=-1)
    embedder = part(weights, "time_embedder")
    embedded = linear(part(embedder, "linear_2"), silu(linear(part(embedder, "linear_1"), waves)))
    return embedded, linear(part(weights, "time_proj"), silu(embedded)).unflatten(-1, (6, -1))


def embed_context(weights: Weights, context: Tensor) -> Tensor:
    """Prompt [B, L, K] to [B, L, D]."""
    embedder = part(weights, "text_embedder")
    return linear(part(embedder, "linear_2"), gelu(linear(part(embedder, "linear_1"), context)))


def head(weights: Weights, x: Tensor, embedded: Tensor, frames: int, grid: tuple[int, int]) -> Tensor:
    """Tokens [B, S, D] to latents [B, T, C, h, w]; a token's numbers are ordered row, column, channel."""
    shift, scale = (weights["scale_shift_table"] + embedded[:, :, None]).unbind(2)
    flat = linear(part(weights, "proj_out"), layer_norm(x) * (1.0 + scale) + shift)
    cells = flat.unflatten(1, (frames, *grid)).unflatten(-1, (2, 2, -1))  # [B, T, h', w', 2, 2, C]
    latents = flat.new_empty(flat.shape[0], frames, cells.shape[-1], 2 * grid[0], 2 * grid[1])
    for row in range(2):
        for column in range(2):
            latents[..., row::2, column::2] = cells[..., row, column, :].movedim(-1, 2)
    return latents


@dataclass
class Sequence:
    """What goes through the network: tokens in the order references, target, preceding.

    Attributes:
        frames: Latents [B, R + T + P, C, h, w].
        level: Noise level of every token, [B, S].
        positions: Time, row and column of every token, [S, 3].
        references: Number of reference frames R.
        target: Number of target frames T.
        grid: Rows and columns of tokens in a frame.
        trace: Tokens after every block and its hint, filled on the way.
    """

    frames: Tensor
    level: Tensor
    positions: Tensor
    references: int
    target: int
    grid: tuple[int, int]
    trace: list[Tensor] = field(default_factory=list)


def lay_out(
    target: Tensor,  # [B, T, C, h, w]
    sigma: Tensor,  # [B, T, h', w']
    preceding: Tensor | None = None,  # [B, P, C, h, w]
    references: Tensor | None = None,  # [B, R, C, h, w]
) -> Sequence:
    """Only the target is noisy; references stand before time 0 and one frame's height further down."""
    rows, columns = sigma.shape[-2:]
    frames, level, positions = [], [], []
    count = 0 if references is None else references.shape[1]
    later = 0 if preceding is None else preceding.shape[1]
    for time in range(-count, target.shape[1] + later):
        noisy = 0 <= time < target.shape[1]
        if time < 0:
            frames.append(references[:, time + count])
        else:
            frames.append(target[:, time] if noisy else preceding[:, time - target.shape[1]])
        for row in range(rows):
            for column in range(columns):
                positions.append((time, row + rows if time < 0 else row, column))
                level.append(sigma[:, time, row, column] if noisy else torch.zeros_like(sigma[:, 0, 0, 0]))
    return Sequence(
        torch.stack(frames, dim=1),
        torch.stack(level, dim=1),
        torch.tensor(positions),
        count,
        target.shape[1],
        (rows, columns),
    )


def mirage_pass(
    weights: Weights,  # "backbone.*" and "branch.*"
    sequence: Sequence,
    context: Tensor,  # [B, L, K]
    condition: Tensor | None,  # [B, T or T + P, Cc, h, w]
    heads: int,
) -> Tensor:
    """Velocity of the target; a branch block stands beside every second block, beginning with the first.

    The branch sees the condition's embedding plus the backbone's embedded tokens of the same frames; what it
    says goes, through a linear layer, to those tokens after the block that it stands beside.
    """
    backbone, branch = part(weights, "backbone"), part(weights, "branch")
    x = embed_patches(part(backbone, "patch_embedding"), sequence.frames)
    embedded, time = embed_time(part(backbone, "condition_embedder"), sequence.level)
    told = embed_context(part(backbone, "condition_embedder"), context)
    per_frame = sequence.grid[0] * sequence.grid[1]
    first = sequence.references * per_frame
    hinted = slice(first, first + (0 if condition is None else condition.shape[1]) * per_frame)
    side = None
    if condition is not None:
        known = embed_patches(part(branch, "patch_embedding"), condition)
        side = linear(part(branch, "before_proj"), known) + x[:, hinted]
    depth = 1 + max(int(name.split(".")[1]) for name in backbone if name.startswith("blocks."))
    for index in range(depth):
        x = block(part(backbone, f"blocks.{index}"), x, told, time, sequence.positions, heads)
        if side is not None and index % 2 == 0:
            beside = part(branch, f"blocks.{index // 2}")
            side = block(beside, side, told, time[:, hinted], sequence.positions[hinted], heads)
            x = x.clone()
            x[:, hinted] += linear(part(branch, f"after_proj.{index // 2}"), side)
        sequence.trace.append(x)
    target = slice(first, first + sequence.target * per_frame)
    return head(backbone, x[:, target], embedded[:, target], sequence.target, sequence.grid)
