"""Build: generator and codec of a checkpoint, ready to run, and a checkpoint of a generator.

Networks are laid out without memory; every tensor is copied once, from its file to its place, in its type.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mirage_sim.checkpoints.checkpoint import Checkpoint, adapted_modules
from mirage_sim.checkpoints.shapes import codec_arguments, empty_codec
from mirage_sim.errors import InputError
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.generator import Generator, empty_generator
from mirage_sim.model.lora import ADAPTER, add_unscaled_lora
from mirage_sim.model.world_model import default_dtype, stays_float32

_ADAPTER_HALF = re.compile(rf"(.+)\.lora_([AB])\.{ADAPTER}\.weight")


def build_generator(
    checkpoint: Checkpoint, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> Generator:
    """Build the generator of a checkpoint.

    Without a branch of its own, it gets an untrained one, which changes nothing. Adapters stay adapters;
    `merge_lora` adds them to the weights.

    Args:
        checkpoint: What `open_checkpoint` gave.
        device: Where it runs.
        dtype: Type of the large weights, norms and tables are float32; `None` takes bf16 where the hardware
            has it.

    Returns:
        The generator in evaluation mode, without gradients.
    """
    target = torch.device(device)
    generator = empty_generator(checkpoint.config)
    backbone = {f"backbone.{name}": tensor for name, tensor in checkpoint.backbone.items()}
    stored = checkpoint.branch or _untrained_branch(generator, checkpoint.backbone)
    branch = {f"branch.{name}": tensor for name, tensor in stored.items()}
    large = dtype if dtype is not None else default_dtype(target)
    generator.load_state_dict(_placed(backbone | branch, target, large), assign=True)
    if checkpoint.adapters:
        _add_adapters(generator, _placed(checkpoint.adapters, target, large))
    return generator.requires_grad_(False).eval()


def build_codec(
    checkpoint: Checkpoint, device: str | torch.device = "cpu", dtype: torch.dtype | None = None
) -> WanCodec:
    """Build the codec of a checkpoint.

    Args:
        checkpoint: What `open_checkpoint` gave.
        device: Where it runs.
        dtype: Type of the autoencoder, its statistics are float32; `None` takes bf16 where the hardware has
            it.

    Returns:
        The codec in evaluation mode, without gradients.

    Raises:
        InputError: If the checkpoint has no codec.
    """
    if not checkpoint.codec:
        raise InputError(f"checkpoint must have a codec, got one of {list(checkpoint.parts)}")
    target = torch.device(device)
    large = dtype if dtype is not None else default_dtype(target)
    autoencoder = empty_codec("checkpoint", checkpoint.codec_config)
    codec = WanCodec(autoencoder)
    tensors = {f"codec.autoencoder.{name}": tensor for name, tensor in checkpoint.codec.items()}
    placed = _placed(tensors, target, large)
    autoencoder.load_state_dict(
        {name.removeprefix("codec.autoencoder."): tensor for name, tensor in placed.items()}, assign=True
    )
    return codec.to(target).requires_grad_(False).eval()


def checkpoint_of(generator: Generator, codec: WanCodec | None = None) -> Checkpoint:
    """Take the tensors of a generator, to save or to publish them.

    Args:
        generator: Backbone, branch, and adapters if it has them.
        codec: The codec that belongs to it.

    Returns:
        The checkpoint; it shares memory with the networks, but for adapters whose scale is not 1: published
        files cannot tell it, so it goes into their second half.
    """
    state = generator.backbone.state_dict()
    adapters = published_scale(generator, state)
    backbone = {
        name.replace(".base_layer.", "."): tensor
        for name, tensor in state.items()
        if _ADAPTER_HALF.fullmatch(name) is None
    }
    parts = {"backbone": backbone, "branch": generator.branch.state_dict(), "adapters": adapters}
    if codec is None:
        return Checkpoint(generator.config, **parts)
    return Checkpoint(
        generator.config,
        **parts,
        codec=codec.autoencoder.state_dict(),
        codec_config=codec_arguments(codec.autoencoder.config),
    )


def published_scale(generator: Generator, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick adapters, with their scale in their second half.

    Args:
        generator: Tells the scales.
        tensors: By the names of the generator or its backbone; others are left out.

    Returns:
        Both halves as `<module of the backbone>.lora_A.weight`, see `Checkpoint`.
    """
    adapters = {}
    for name, tensor in tensors.items():
        found = _ADAPTER_HALF.fullmatch(name.removeprefix("backbone."))
        if found is not None:
            layer: Any = generator.backbone.get_submodule(found[1])
            scale = layer.scaling[ADAPTER] if found[2] == "B" else 1.0
            adapters[f"{found[1]}.lora_{found[2]}.weight"] = tensor if scale == 1.0 else tensor * scale
    return adapters


def _placed(tensors: Mapping[str, Tensor], device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Copy tensors to a device in the type that the network keeps them in.

    Copies, always: a network that is changed in place must not change the checkpoint, nor hang on its file.
    """
    return {
        name: tensor.to(device, torch.float32 if stays_float32(name) else dtype, copy=True)
        for name, tensor in tensors.items()
    }


def _untrained_branch(generator: Generator, backbone: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights that a new memory branch starts from: copies of the backbone's blocks, and hints of zero."""
    shapes = generator.branch.state_dict()
    weights = {}
    for name, shape in shapes.items():
        kind, _, rest = name.partition(".")
        if kind == "blocks":
            index, _, leaf = rest.partition(".")
            weights[name] = backbone[f"blocks.{generator.branch.places[int(index)]}.{leaf}"]
        elif kind == "patch_embedding":
            # As any convolution starts, but the same one every time.
            chance = torch.Generator().manual_seed(0)
            bound = shapes["patch_embedding.weight"][0].numel() ** -0.5
            weights[name] = nn.init.uniform_(
                torch.empty(shape.shape, dtype=torch.float32, device="cpu"), -bound, bound, generator=chance
            )
        else:
            weights[name] = torch.zeros(shape.shape, dtype=torch.float32, device="cpu")
    return weights


def _add_adapters(generator: Generator, adapters: Mapping[str, Tensor]) -> None:
    """Put adapters beside the backbone's layers."""
    ranks = {module: adapters[f"{module}.lora_A.weight"].shape[0] for module in adapted_modules(adapters)}
    with torch.device("meta"):  # they need no weights to begin with
        add_unscaled_lora(generator, ranks)
    named = {name.replace(".weight", f".{ADAPTER}.weight"): tensor for name, tensor in adapters.items()}
    generator.backbone.load_state_dict(named, strict=False, assign=True)
