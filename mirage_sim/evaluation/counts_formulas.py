"""Formulas of the counts: parameters and operations of generator and text encoder, written out by hand.

They know nothing of what torch counts, on purpose: two ways to the same number, and a test that they agree. A
linear layer from n to m channels has n·m + m parameters and takes 2·n·m operations a token; attention of S
tokens over L others takes 4·S·L·D for width D. Norms, activations, rotary positions and sums are left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from mirage_sim.model.config import GeneratorConfig
from mirage_sim.model.meter import Flops

TIME_FREQUENCIES = 256  # channels of a noise level before it is embedded


@dataclass(frozen=True)
class PassShape:
    """Sequence of one pass through the generator.

    Attributes:
        target: Latent frames that are denoised.
        preceding: Clean latent frames before them.
        references: Clean latent frames of earlier views.
        tokens: Tokens of a latent frame.
        prompt: Tokens of the context.
        branch: Whether the memory branch runs, over target and preceding.
    """

    target: int
    preceding: int
    references: int
    tokens: int
    prompt: int
    branch: bool

    @property
    def sequence(self) -> int:
        """Tokens that the backbone sees."""
        return (self.references + self.target + self.preceding) * self.tokens


@dataclass(frozen=True)
class TextShape:
    """Shape of a T5-like text encoder; the defaults are UMT5-XXL's.

    Attributes:
        vocabulary: Tokens that it knows.
        width: Channels of a token.
        layers: Blocks.
        heads: Attention heads.
        head_dim: Channels of one head.
        ffn_dim: Hidden width of the gated feed-forward layers.
        buckets: Distances that the relative positions tell apart.
    """

    vocabulary: int = 256384
    width: int = 4096
    layers: int = 24
    heads: int = 64
    head_dim: int = 64
    ffn_dim: int = 10240
    buckets: int = 32


def backbone_parameters(config: GeneratorConfig) -> int:
    """Parameters of the backbone."""
    width, patch = _width(config), _patch(config)
    embedding = _linear(config.channels * patch, width)
    time = _linear(TIME_FREQUENCIES, width) + _linear(width, width) + _linear(width, 6 * width)
    context = _linear(config.context_dim, width) + _linear(width, width)
    head = _linear(width, config.channels * patch) + 2 * width
    return embedding + time + context + config.layers * _block_parameters(config) + head


def branch_parameters(config: GeneratorConfig) -> int:
    """Parameters of the memory branch."""
    width = _width(config)
    embedding = _linear(config.condition_channels * _patch(config), width)
    each = _block_parameters(config) + _linear(width, width)
    return embedding + _linear(width, width) + _branch_layers(config) * each


def lora_parameters(config: GeneratorConfig, rank: int) -> int:
    """Parameters of adapters of a rank on queries, keys, values, outputs and both feed-forward layers."""
    width = _width(config)
    attention = 4 * (width + width)
    return config.layers * rank * (2 * attention + 2 * (width + config.ffn_dim))


def text_parameters(shape: TextShape) -> int:
    """Parameters of the text encoder; it has no biases, and each layer its own relative positions."""
    inner = shape.heads * shape.head_dim
    layer = 4 * shape.width * inner + shape.buckets * shape.heads + 3 * shape.width * shape.ffn_dim
    return shape.vocabulary * shape.width + shape.layers * (layer + 2 * shape.width) + shape.width


def generator_flops(config: GeneratorConfig, shape: PassShape) -> Flops:
    """Operations of one pass through backbone and branch, for one world.

    Args:
        config: Shape of the generator.
        shape: Shape of the sequence.

    Returns:
        The operations by kind.

    Source: ours, from the published architecture.
    """
    width, patch = _width(config), _patch(config)
    sequence, target = shape.sequence, shape.target * shape.tokens
    once = Flops(
        linear=2 * sequence * (TIME_FREQUENCIES * width + width * width + 6 * width * width)
        + 2 * shape.prompt * (config.context_dim * width + width * width)
        + 2 * target * width * config.channels * patch,
        convolution=2 * sequence * config.channels * patch * width,
    )
    flops = once + _block_flops(config, sequence, shape.prompt) * config.layers
    if not shape.branch:
        return flops
    layers = _branch_layers(config)
    hinted = (shape.target + shape.preceding) * shape.tokens
    around = Flops(
        linear=2 * hinted * width * width * (1 + layers),
        convolution=2 * hinted * config.condition_channels * patch * width,
    )
    return flops + around + _block_flops(config, hinted, shape.prompt) * layers


def text_flops(shape: TextShape, prompt: int) -> Flops:
    """Operations for one prompt of so many tokens."""
    inner = shape.heads * shape.head_dim
    layer = Flops(
        linear=2 * prompt * (4 * shape.width * inner + 3 * shape.width * shape.ffn_dim),
        attention=4 * prompt * prompt * inner,
    )
    return layer * shape.layers


def _block_parameters(config: GeneratorConfig) -> int:
    """Self- and cross-attention with norms of queries and keys, feed-forward, one norm, one table."""
    width = _width(config)
    attention = 4 * _linear(width, width) + 2 * width
    feed_forward = _linear(width, config.ffn_dim) + _linear(config.ffn_dim, width)
    return 2 * attention + feed_forward + 2 * width + 6 * width


def _block_flops(config: GeneratorConfig, tokens: int, prompt: int) -> Flops:
    width = _width(config)
    square = width * width
    return Flops(
        linear=2 * tokens * (4 * square + 2 * square + 2 * width * config.ffn_dim) + 2 * prompt * 2 * square,
        attention=4 * tokens * (tokens + prompt) * width,
    )


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _width(config: GeneratorConfig) -> int:
    return config.heads * config.head_dim


def _patch(config: GeneratorConfig) -> int:
    """Cells of a token."""
    rows, columns = config.patch_hw
    return rows * columns


def _branch_layers(config: GeneratorConfig) -> int:
    return len(range(0, config.layers, config.branch_every))
