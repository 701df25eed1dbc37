"""Backbone: the transformer of Wan2.2, in parts that the generator walks through.

Parameters have the names, shapes and types of diffusers' `WanTransformer3DModel`, so that its weights fit; a
test holds the two equal. This one is imported in a third of the time, and lets the generator add the memory's
hints between blocks. Rotary positions come from the generator.

Source: Wan (arXiv 2503.20314).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.libraries import from_library
from mirage_sim.model.config import GeneratorConfig

EPSILON = 1e-6
FREQUENCIES = 256
"""Channels of the sinusoidal embedding of a noise level."""


class FP32LayerNorm(nn.LayerNorm):
    """Layer norm that computes in float32."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Normalise [..., D]."""
        weight = None if self.weight is None else self.weight.float()
        bias = None if self.bias is None else self.bias.float()
        return F.layer_norm(hidden.float(), self.normalized_shape, weight, bias, self.eps).to(hidden.dtype)


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Apply a rotary embedding.

    Args:
        heads: Queries or keys, [B, S, heads, d].
        cos: Each frequency in two neighbouring channels, [1, S, 1, d].
        sin: Likewise.

    Returns:
        [B, S, heads, d].
    """
    real, imaginary = heads[..., 0::2], heads[..., 1::2]  # [B, S, heads, d / 2]
    cos, sin = cos[..., 0::2], sin[..., 0::2]
    turned = (real * cos - imaginary * sin).to(heads.dtype), (real * sin + imaginary * cos).to(heads.dtype)
    return torch.stack(turned, dim=-1).flatten(-2)


class Attention(nn.Module):
    """Attention among tokens, or of tokens to a context.

    Attributes:
        backend: Name of one of diffusers' back ends; `None`: by PyTorch.
    """

    def __init__(self, width: int, heads: int) -> None:
        """Build the projections with random weights.

        Args:
            width: Channels D of a token.
            heads: Attention heads.
        """
        super().__init__()
        self.heads = heads
        self.backend: str | None = None
        self.to_q = nn.Linear(width, width)
        self.to_k = nn.Linear(width, width)
        self.to_v = nn.Linear(width, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout(0.0)])
        self.norm_q = nn.RMSNorm(width, eps=EPSILON)
        self.norm_k = nn.RMSNorm(width, eps=EPSILON)

    def forward(
        self,
        hidden: Tensor,  # [B, S, D]
        context: Tensor | None = None,  # [B, L, D]
        rotary: tuple[Tensor, Tensor] | None = None,  # [1, S, 1, d]
    ) -> Tensor:
        """Attend to the context, or to the tokens themselves where there is none: [B, S, D]."""
        seen = hidden if context is None else context
        query, key, value = self.to_q(hidden), self.to_k(seen), self.to_v(seen)
        query, key = self.norm_q(query), self.norm_k(key)
        query, key, value = (part.unflatten(2, (self.heads, -1)) for part in (query, key, value))
        if rotary is not None:
            query, key = rotate(query, *rotary), rotate(key, *rotary)
        attended = self._attend(query, key, value).flatten(2, 3).type_as(query)
        for layer in self.to_out:
            attended = layer(attended)
        return attended

    def _attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """[B, S, heads, d] of [B, S or L, heads, d]."""
        if self.backend is not None:
            dispatch = from_library("diffusers.models.attention_dispatch", "dispatch_attention_fn")
            by_backend: Tensor = dispatch(query, key, value, backend=self.backend)
            return by_backend
        query, key, value = (part.permute(0, 2, 1, 3) for part in (query, key, value))
        return F.scaled_dot_product_attention(query, key, value).permute(0, 2, 1, 3)


def check_backend(name: str) -> None:
    """Raise unless one of diffusers' attention back ends is installed here.

    Args:
        name: Of the back end.

    Raises:
        InputError: If it is unknown, not here, or would be downloaded.
    """
    if name.endswith("_hub"):
        raise InputError(f"attention must be installed, not downloaded, got {name!r}")
    chosen = from_library("diffusers.models.attention_dispatch", "attention_backend")
    try:
        with chosen(name):
            return
    except (ValueError, RuntimeError, ImportError) as error:
        raise InputError(f"attention must be a back end that works here, got {name!r}: {error}") from error


class _Gelu(nn.Module):
    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, inner)

    def forward(self, hidden: Tensor) -> Tensor:
        return F.gelu(self.proj(hidden), approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, inner: int) -> None:
        """Build them with random weights.

        Args:
            width: Channels D of a token.
            inner: Of the hidden layer.
        """
        super().__init__()
        self.net = nn.ModuleList([_Gelu(width, inner), nn.Dropout(0.0), nn.Linear(inner, width)])

    def forward(self, hidden: Tensor) -> Tensor:
        """Map [..., D] to [..., D]."""
        for layer in self.net:
            hidden = layer(hidden)
        return hidden


class Block(nn.Module):
    """Self-attention, cross-attention and feed-forward layer, scaled and shifted by the noise level."""

    def __init__(self, width: int, heads: int, inner: int) -> None:
        """Build the block with random weights.

        Args:
            width: Channels D of a token.
            heads: Attention heads.
            inner: Hidden width of the feed-forward layer.
        """
        super().__init__()
        self.norm1 = FP32LayerNorm(width, EPSILON, elementwise_affine=False)
        self.attn1 = Attention(width, heads)
        self.attn2 = Attention(width, heads)
        self.norm2 = FP32LayerNorm(width, EPSILON)
        self.ffn = FeedForward(width, inner)
        self.norm3 = FP32LayerNorm(width, EPSILON, elementwise_affine=False)
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, width) / width**0.5)

    def forward(
        self,
        hidden: Tensor,  # [B, S, D]
        context: Tensor,  # [B, L, D]
        time: Tensor,  # [B, S, 6, D]
        rotary: tuple[Tensor, Tensor],  # [1, S, 1, d]
    ) -> Tensor:
        """Run the block.

        Args:
            hidden: Tokens.
            context: Embedded prompt or motion.
            time: Projected noise levels of the tokens.
            rotary: Rotary embedding of the tokens.

        Returns:
            Tokens [B, S, D].
        """
        table = self.scale_shift_table.unsqueeze(0) + time.float()  # [B, S, 6, D]
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = table.unbind(dim=2)
        normed = (self.norm1(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        attended = self.attn1(normed, None, rotary)
        hidden = (hidden.float() + attended * gate).type_as(hidden)
        normed = self.norm2(hidden.float()).type_as(hidden)
        hidden = hidden + self.attn2(normed, context)
        normed = (self.norm3(hidden.float()) * (1 + ffn_scale) + ffn_shift).type_as(hidden)
        mapped: Tensor = self.ffn(normed)
        return (hidden.float() + mapped.float() * ffn_gate).type_as(hidden)


class _Embedder(nn.Module):
    """Two linear layers with an activation between them."""

    def __init__(self, channels: int, width: int, activation: nn.Module) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(channels, width)
        self.activation = activation
        self.linear_2 = nn.Linear(width, width)

    def forward(self, given: Tensor) -> Tensor:
        embedded: Tensor = self.linear_2(self.activation(self.linear_1(given)))
        return embedded


class ConditionEmbedder(nn.Module):
    """Embeds noise levels, and projects the context."""

    def __init__(self, width: int, context_dim: int) -> None:
        """Build it with random weights.

        Args:
            width: Channels D of a token.
            context_dim: Channels of a context token.
        """
        super().__init__()
        self.time_embedder = _Embedder(FREQUENCIES, width, nn.SiLU())
        self.time_proj = nn.Linear(width, 6 * width)
        self.text_embedder = _Embedder(context_dim, width, nn.GELU(approximate="tanh"))

    def forward(self, levels: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed both.

        Args:
            levels: Noise levels as the backbone counts them, float32 [B, S].
            context: [B, L, context_dim].

        Returns:
            Embedded levels [B, S, D], the same projected [B, S, 6, D], and the context [B, L, D].
        """
        waves = sinusoids(levels.flatten()).view(*levels.shape, FREQUENCIES)
        embedded = self.time_embedder(waves.to(self.time_embedder.linear_1.weight.dtype)).type_as(context)
        projected = self.time_proj(F.silu(embedded)).unflatten(2, (6, -1))
        return embedded, projected, self.text_embedder(context)


def sinusoids(levels: Tensor) -> Tensor:
    """Cosines and sines of noise levels [N]: float32 [N, FREQUENCIES]."""
    half = FREQUENCIES // 2
    exponent = -math.log(10000) * torch.arange(half, dtype=torch.float32, device=levels.device)
    waves = levels[:, None].float() * torch.exp(exponent / half)[None, :]
    return torch.cat([torch.cos(waves), torch.sin(waves)], dim=-1)


class Backbone(nn.Module):
    """The parts of the transformer: embeddings, blocks and output layer; `Generator` is the pass."""

    def __init__(self, config: GeneratorConfig) -> None:
        """Build them with random weights.

        Args:
            config: Shapes.
        """
        super().__init__()
        width = config.heads * config.head_dim
        self.patch_embedding = nn.Conv3d(config.channels, width, config.patch_size, config.patch_size)
        self.condition_embedder = ConditionEmbedder(width, config.context_dim)
        self.blocks = nn.ModuleList(Block(width, config.heads, config.ffn_dim) for _ in range(config.layers))
        self.norm_out = FP32LayerNorm(width, EPSILON, elementwise_affine=False)
        self.proj_out = nn.Linear(width, config.channels * math.prod(config.patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, width) / width**0.5)
