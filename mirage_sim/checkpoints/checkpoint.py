"""Checkpoint: the tensors of a full-size model under our names, checked, and still in their files.

`open_checkpoint` takes a diffusers folder, official files, or a folder of our own, plus a memory branch and
adapters in their published files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirage_sim.checkpoints.checks import check_tensors
from mirage_sim.checkpoints.codec_names import codec_config, codec_depth, codec_names
from mirage_sim.checkpoints.files import INDEX_ENDING, find_weights, read_tensors
from mirage_sim.checkpoints.names import ADAPTERS, ALPHA, BACKBONE, BRANCH, translate
from mirage_sim.checkpoints.scales import adapter_scales, scaled_adapters
from mirage_sim.checkpoints.shapes import (
    check_class,
    codec_arguments,
    config_of_diffusers,
    config_of_tensors,
    empty_codec,
    with_branch,
)
from mirage_sim.errors import FileFormatError
from mirage_sim.model.config import GeneratorConfig
from mirage_sim.model.generator import empty_generator
from mirage_sim.pretrained import read_json

OFFICIAL_CODECS = ("Wan2.2_VAE.pth", "Wan2.2_VAE.safetensors")


@dataclass(frozen=True)
class Checkpoint:
    """Tensors by part, in their stored types.

    Attributes:
        config: Shape of backbone and branch.
        backbone: By the names of diffusers' `WanTransformer3DModel`.
        branch: By the names of `MemoryBranch`; empty if it is still to be trained.
        adapters: Low-rank adapters as `<module of the backbone>.lora_A.weight`; empty if there are none.
            Their product is added as it is, whatever their rank.
        codec: By the names of diffusers' `AutoencoderKLWan`; empty if there is none.
        codec_config: Arguments of that class.
    """

    config: GeneratorConfig
    backbone: Mapping[str, Tensor]
    branch: Mapping[str, Tensor] = field(default_factory=dict)
    adapters: Mapping[str, Tensor] = field(default_factory=dict)
    codec: Mapping[str, Tensor] = field(default_factory=dict)
    codec_config: Mapping[str, Any] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Mapping[str, Tensor]]:
        """The parts that it has, by name."""
        every = {name: getattr(self, name) for name in ("backbone", "branch", "adapters", "codec")}
        return {name: tensors for name, tensors in every.items() if tensors}

    def digest(self) -> str:
        """Hash of every tensor with its name, the same wherever it was opened from: sha256 in hex."""
        found = hashlib.sha256()
        for part, tensors in self.parts.items():
            for name in sorted(tensors):
                tensor = tensors[name].contiguous()
                found.update(f"{part}.{name} {tensor.dtype} {list(tensor.shape)} ".encode())
                found.update(tensor.flatten().view(torch.uint8).numpy().data)
        return found.hexdigest()


def open_diffusers(folder: Path) -> Checkpoint:
    """Open a diffusers folder: `transformer/`, and `vae/` if it is there.

    Args:
        folder: What `save_pretrained` of a pipeline wrote; text encoder and tokenizer are not looked at.

    Returns:
        The checkpoint.

    Raises:
        FileFormatError: If files are missing, damaged, or do not fit each other.
    """
    transformer, vae = folder / "transformer", folder / "vae"
    config = config_of_diffusers(transformer / "config.json")
    weights = find_weights(transformer)
    backbone = read_tensors(weights)
    check_tensors(weights, backbone, empty_generator(config).backbone.state_dict())
    if not vae.is_dir():
        return Checkpoint(config, backbone)
    path, weights = vae / "config.json", find_weights(vae)
    values = read_json(path)
    check_class(path, values, "AutoencoderKLWan")
    arguments, codec = codec_arguments(values), read_tensors(weights)
    check_tensors(weights, codec, empty_codec(path, arguments).state_dict())
    return Checkpoint(config, backbone, codec=codec, codec_config=arguments)


def open_official(source: Path) -> Checkpoint:
    """Open official files.

    Args:
        source: A file of the backbone, or a folder that holds it as `diffusion_pytorch_model` and may hold
            `Wan2.2_VAE.pth`. A `config.json` beside the weights tells the number of heads.

    Returns:
        The checkpoint.

    Raises:
        FileFormatError: If files are missing, damaged, or do not fit each other.
    """
    weights = find_weights(source) if source.is_dir() else source
    backbone, unknown = translate(read_tensors(weights), BACKBONE)
    config = config_of_tensors(weights, backbone, _official_heads(weights.parent / "config.json"))
    expected = empty_generator(config).backbone.state_dict()
    check_tensors(weights, backbone, expected, unknown, BACKBONE.say)
    checkpoint = Checkpoint(config, backbone)
    there = [source / name for name in OFFICIAL_CODECS if (source / name).is_file()]
    if len(there) > 1:
        raise FileFormatError(f"{source} must hold one of {OFFICIAL_CODECS}, got both")
    return with_official_codec(checkpoint, there[0]) if there else checkpoint


def _official_heads(path: Path) -> int | None:
    """Attention heads that an official `config.json` tells."""
    if not path.is_file():
        return None
    values = read_json(path)
    check_class(path, values, "WanModel")
    heads = values.get("num_heads")
    if type(heads) is not int or heads < 1:
        raise FileFormatError(f"{path} must tell num_heads as a whole number, got {heads!r}")
    return heads


def with_official_codec(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Add the official VAE.

    Args:
        checkpoint: The rest.
        path: `Wan2.2_VAE.pth`, or the same tensors in another kind of file.

    Returns:
        The checkpoint with its codec.

    Raises:
        FileFormatError: If the file is missing, damaged, or not of Wan2.2's VAE.
    """
    stored = read_tensors(path)
    depth = codec_depth(stored)
    names = codec_names(*depth)
    codec, unknown = translate(stored, names)
    arguments = codec_config(codec, *depth)
    check_tensors(path, codec, empty_codec(path, arguments).state_dict(), unknown, names.say)
    return replace(checkpoint, codec=codec, codec_config=arguments)


def with_branch_file(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Add a memory branch from its published file, in place of one that is there.

    Args:
        checkpoint: The rest.
        path: The file; its tensors tell the number of condition channels.

    Returns:
        The checkpoint with its branch.

    Raises:
        FileFormatError: If the file is missing, damaged, or does not fit the backbone.
    """
    branch, unknown = translate(read_tensors(path), BRANCH)
    config = with_branch(path, checkpoint.config, branch)
    check_tensors(path, branch, empty_generator(config).branch.state_dict(), unknown, BRANCH.say)
    return replace(checkpoint, config=config, branch=branch)


def with_adapter_file(checkpoint: Checkpoint, path: Path) -> Checkpoint:
    """Add adapters from their published file, in place of those that are there.

    Args:
        checkpoint: The rest.
        path: The file; it may adapt some of the layers only, and each at a rank of its own.

    Returns:
        The checkpoint with its adapters.

    Raises:
        FileFormatError: If the file is missing, damaged, or does not fit the backbone.
    """
    stored, unknown = translate(read_tensors(path), ADAPTERS)
    adapters = {name: tensor for name, tensor in stored.items() if not name.endswith(f".{ALPHA}")}
    if not adapters:
        raise FileFormatError(f"{path} must hold adapters, got {sorted(unknown)[:3]} and others")
    expected = adapter_shapes(checkpoint.backbone, stored)
    scaled = {f"{module}.{ALPHA}" for module in adapted_modules(expected)}
    unknown += [name for name in stored if name not in adapters and name not in scaled]
    check_tensors(path, adapters, expected, unknown, ADAPTERS.say)
    return replace(checkpoint, adapters=scaled_adapters(path, adapters, adapter_scales(path, stored)))


def adapter_shapes(backbone: Mapping[str, Tensor], names: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Shapes of both halves of every adapter that is there in part, as tensors without memory.

    Args:
        backbone: Tells width in and out of a layer.
        names: Adapters; the first half of each tells its rank, or that of another one where it is missing.

    Returns:
        Tensors on "meta" by name.
    """
    halves = {name: tensor for name, tensor in names.items() if name.endswith(".lora_A.weight")}
    ranks = {name: tensor.shape[0] for name, tensor in halves.items() if tensor.ndim and tensor.shape[0]}
    usual = next(iter(ranks.values()), 1)
    expected = {}
    for module in adapted_modules(names):
        layer = backbone.get(f"{module}.weight")
        if layer is not None and layer.ndim == 2:
            rank = ranks.get(f"{module}.lora_A.weight", usual)
            expected[f"{module}.lora_A.weight"] = torch.empty(
                rank, layer.shape[1], device="meta", dtype=torch.float32
            )
            expected[f"{module}.lora_B.weight"] = torch.empty(
                layer.shape[0], rank, device="meta", dtype=torch.float32
            )
    return expected


def adapted_modules(names: Iterable[str]) -> list[str]:
    """Modules of the backbone that adapters adapt, once each."""
    return list(dict.fromkeys(re.sub(rf"\.(lora_[AB]\.weight|{ALPHA})$", "", name) for name in names))


def is_official(source: Path) -> bool:
    """Whether this is a file, or a folder that holds official weights."""
    stem = source / "diffusion_pytorch_model"
    return source.is_file() or any(Path(f"{stem}{end}").is_file() for end in (INDEX_ENDING, ".safetensors"))
