"""Networks of the counts: each built without values, run once, and held against its formula."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.evaluation.counts_codec import (
    CodecShape,
    decode_flops,
    decoder_parameters,
    encode_flops,
    encoder_parameters,
    tiled_decode_flops,
)
from mirage_sim.evaluation.counts_formulas import (
    PassShape,
    TextShape,
    backbone_parameters,
    branch_parameters,
    generator_flops,
    lora_parameters,
    text_flops,
    text_parameters,
)
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.full_size import loaded_shape
from mirage_sim.model.generator import Generator
from mirage_sim.model.lora import add_lora
from mirage_sim.model.meter import Flops, Measured, measure, peak_with_matrix, weight_bytes

TILE_PIXELS, TILE_STRIDE = 512, 448
"""Side of a tile and way to the next one. Smaller tiles need less memory than the generator does anyway, and
overlap more: diffusers' own of 256 and 192 take 1.65 times the operations of a whole picture, these 1.20."""


def count_networks(
    generator: Generator, codec: WanCodec, text: nn.Module | None, ranks: Sequence[int]
) -> dict[str, dict[str, int]]:
    """Count parameters and bytes as they are loaded, beside what the formulas say.

    Args:
        generator: Backbone and branch, without values.
        codec: The autoencoder.
        text: The text encoder, if there is one.
        ranks: Of adapters for the backbone.

    Returns:
        By network `parameters`, `float32` (how many of them), `bytes` and `formula` (parameters).
    """
    shape, vae, config = CodecShape.of(codec.autoencoder.config), codec.autoencoder, generator.config
    told = {
        "backbone": (generator.backbone.parameters(), backbone_parameters(config)),
        "memory branch": (generator.branch.parameters(), branch_parameters(config)),
        "VAE encoder": (_parameters(vae.encoder, vae.quant_conv), encoder_parameters(shape)),
        "VAE decoder": (_parameters(vae.post_quant_conv, vae.decoder), decoder_parameters(shape)),
    }
    for rank in ranks:
        adapted = loaded_shape(config)
        add_lora(adapted, LoRAConfig(rank=rank))
        adapters = [each for name, each in adapted.named_parameters() if ".lora_" in name]
        told[f"LoRA, rank {rank}"] = (iter(adapters), lora_parameters(config, rank))
    if text is not None:
        told["text encoder"] = (text.parameters(), text_parameters(TextShape()))
    return {name: weight_bytes(each) | {"formula": formula} for name, (each, formula) in told.items()}


def count_passes(
    generator: Generator, shapes: Sequence[PassShape], cells: tuple[int, int]
) -> tuple[list[dict[str, Any]], int]:
    """Count one pass of each shape.

    Args:
        generator: Without values.
        shapes: Of the sequences; the last one is the largest.
        cells: Rows and columns of a latent frame.

    Returns:
        Rows with the shape and its `sequence`, `counted` and `formula` (operations by kind) and `peak_bytes`;
        and the bytes alive in the last pass where attention keeps its matrix.
    """
    weights, rows = list(generator.parameters()), []
    for shape in tqdm(shapes, desc="passes", disable=None):
        counted = measure(one_pass(generator, shape, cells), weights, generator.blocks)
        told = _row(counted, generator_flops(generator.config, shape))
        rows.append(asdict(shape) | {"sequence": shape.sequence} | told)
    return rows, peak_with_matrix(one_pass(generator, shapes[-1], cells), weights, generator.blocks)


def one_pass(generator: Generator, shape: PassShape, cells: tuple[int, int]) -> Callable[[], Tensor]:
    """One pass through a generator without values, for one world.

    Args:
        generator: On the "meta" device.
        shape: Of the sequence.
        cells: Rows and columns of a latent frame.

    Returns:
        A call that makes the pass.
    """
    config = generator.config

    def frames(count: int, channels: int) -> Tensor | None:
        return _empty(1, count, channels, *cells) if count else None

    def call() -> Tensor:
        velocity: Tensor = generator(
            _empty(1, shape.target, config.channels, *cells),
            _empty(1, shape.target, *generator.token_grid(cells)),
            _empty(1, shape.prompt, config.context_dim),
            frames(shape.preceding, config.channels),
            frames(shape.references, config.channels),
            frames(shape.target + shape.preceding, config.condition_channels) if shape.branch else None,
        )
        return velocity

    return call


def count_codec(codec: WanCodec, length: int, cells: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """Count what encoding and decoding take.

    Args:
        codec: Without values.
        length: Latent frames that are decoded; the first only tells what came before.
        cells: Rows and columns of a latent frame.

    Returns:
        `encode` (a first frame), `encode_chunk` (the pictures of all latent frames, as a memory of colours
        needs it), `decode` and `decode_tiled`, each with `counted`, `formula` and `peak_bytes`.
    """
    shape, stride = CodecShape.of(codec.autoencoder.config), codec.spatial_stride
    hw, weights = (cells[0] * stride, cells[1] * stride), list(codec.parameters())
    pictures = 1 + codec.temporal_stride * (length - 1)
    context = None if length == 1 else _empty(1, 1, codec.channels, *cells)

    def encode(count: int) -> Measured:
        return measure(lambda: codec.encode(_empty(1, count, 3, *hw)), weights)

    def decode() -> Measured:
        latents = _empty(1, max(1, length - 1), codec.channels, *cells)
        return measure(lambda: codec.decode(latents, context), weights)

    calls = {
        "encode": _row(encode(1), encode_flops(shape, 1, cells)),
        "encode_chunk": _row(encode(pictures), encode_flops(shape, pictures, cells)),
        "decode": _row(decode(), decode_flops(shape, length, cells)),
    }
    codec.autoencoder.enable_tiling(TILE_PIXELS, TILE_PIXELS, TILE_STRIDE, TILE_STRIDE)
    tiles = (TILE_PIXELS // stride, TILE_STRIDE // stride)
    calls["decode_tiled"] = _row(decode(), tiled_decode_flops(shape, length, cells, *tiles))
    codec.autoencoder.disable_tiling()
    return calls


def count_text(text: nn.Module | None, shape: TextShape, prompt: int) -> dict[str, dict[str, Any]]:
    """Count what a prompt takes, under `prompt`; nothing without a text encoder."""
    if text is None:
        return {}
    tokens = torch.zeros(1, prompt, dtype=torch.long, device="meta")
    counted = measure(lambda: text(input_ids=tokens), text.parameters())
    return {"prompt": _row(counted, text_flops(shape, prompt))}


def empty_text_encoder(shape: TextShape) -> nn.Module | None:
    """Build transformers' UMT5 encoder without values in bfloat16; `None` where transformers is missing."""
    try:
        transformers = importlib.import_module("transformers")
    except ImportError:
        return None
    config = transformers.UMT5Config(
        vocab_size=shape.vocabulary,
        d_model=shape.width,
        d_kv=shape.head_dim,
        d_ff=shape.ffn_dim,
        num_layers=shape.layers,
        num_heads=shape.heads,
        relative_attention_num_buckets=shape.buckets,
        feed_forward_proj="gated-gelu",
    )
    with torch.device("meta"):
        encoder: nn.Module = transformers.UMT5EncoderModel(config)
    return encoder.to(torch.bfloat16).eval()


def _row(counted: Measured, formula: Flops) -> dict[str, Any]:
    return {
        "counted": counted.flops.as_dict(),
        "formula": formula.as_dict(),
        "peak_bytes": counted.peak_bytes,
    }


def _parameters(*modules: nn.Module) -> Iterator[Tensor]:
    return (each for module in modules for each in module.parameters())


def _empty(*shape: int) -> Tensor:
    return torch.empty(*shape, device="meta")
