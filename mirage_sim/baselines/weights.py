"""Weights: the networks that a baseline has of its own, trained for what its memory tells.

Where something is read, these are the resampler and the memory branch, which look at it; where frames are
shown as references, adapters of the backbone. Everything else is the embedded model's.
"""

from __future__ import annotations

import copy
import hashlib
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mirage_sim.baselines.config import KINDS
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.files import made_folder, whole_file
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.lora import add_lora, merge_lora
from mirage_sim.model.world_model import WorldModel, stays_float32

ADAPTERS = LoRAConfig(rank=16, alpha=16)


def own_parts(model: WorldModel, kind: str) -> nn.ModuleDict:
    """Networks that a baseline trains.

    Args:
        model: What `with_own_parts` gave.
        kind: One of `KINDS`.

    Returns:
        The networks by name.
    """
    if kind == "retrieved":
        return nn.ModuleDict({"backbone": model.generator.backbone})
    return nn.ModuleDict({"resampler": model.resampler, "branch": model.generator.branch})


def with_own_parts(model: WorldModel, kind: str) -> WorldModel:
    """Copy a model so that the parts a baseline trains are its own; the rest is shared.

    Args:
        model: The embedded model.
        kind: One of `KINDS`.

    Returns:
        The copy; a backbone of its own has adapters.

    Raises:
        InputError: If the kind is unknown.
    """
    if kind not in KINDS:
        raise InputError(f"kind must be one of {KINDS}, got {kind!r}")
    changes: dict[str, dict[str, Any]] = {"appended": {"extras": False}, "retrieved": {"references": 1}}
    other = model.with_settings(**changes.get(kind, {}))
    other.generator = copy.copy(model.generator)
    other.generator._modules = dict(model.generator._modules)
    if kind == "retrieved":
        other.generator.backbone = copy.deepcopy(model.generator.backbone)
        add_lora(other.generator, ADAPTERS)
    else:
        other.resampler = copy.deepcopy(model.resampler)
        other.generator.branch = copy.deepcopy(model.generator.branch)
    return other


def own_tensors(model: WorldModel, kind: str) -> dict[str, Tensor]:
    """Tensors of a baseline's own, by name: of a backbone the adapters only."""
    state = own_parts(model, kind).state_dict()
    return {name: tensor for name, tensor in state.items() if kind != "retrieved" or ".lora_" in name}


def shared_digest(model: WorldModel) -> str:
    """Digest of the weights that a baseline's own parts were trained beside: codec and backbone."""
    digest = hashlib.sha256()
    for module in (model.codec, model.generator.backbone):
        for name, tensor in sorted(module.state_dict().items()):
            stored = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(name.encode() + stored.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def save_baseline(model: WorldModel, kind: str, base: str, path: Path) -> None:
    """Write a baseline's own weights in 16 bit, norms in 32.

    Args:
        model: What `with_own_parts` gave, trained.
        kind: One of `KINDS`.
        base: `shared_digest` of the model that it was trained beside.
        path: safetensors file.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32 if stays_float32(name) else torch.bfloat16).contiguous()
        for name, tensor in own_tensors(model, kind).items()
    }
    with made_folder(path.parent), whole_file(path) as temporary:
        save_file(tensors, temporary, {"base": base})


def load_baseline(model: WorldModel, kind: str, path: Path | None = None) -> WorldModel:
    """Give a model the networks that a baseline trained.

    Args:
        model: The embedded model.
        kind: One of `KINDS`.
        path: safetensors file; the one in the package if `None`.

    Returns:
        A model of its own that shares everything else.

    Raises:
        FileFormatError: If the file is missing, damaged, or trained on other weights.
    """
    if path is None:
        with as_file(files("mirage_sim.baselines") / f"{kind}.safetensors") as found:
            return load_baseline(model, kind, found)
    try:
        with safe_open(path, "pt") as file:
            base = (file.metadata() or {}).get("base")
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileFormatError(
            f"{path} must hold the weights of the baseline {kind!r}, got {error}"
        ) from error
    if base != shared_digest(model):
        raise FileFormatError(
            f"{path} must belong to this model's codec and backbone {shared_digest(model)}, got {base}: "
            f"train it again with `mirage-sim train baseline-{kind}`"
        )
    other = with_own_parts(model, kind)
    missing = sorted(set(own_tensors(other, kind)) ^ set(tensors))
    try:
        if missing:
            raise FileFormatError(f"{path} must hold the tensors of {kind!r}, differs in {missing[:3]}")
        own_parts(other, kind).load_state_dict(tensors, strict=False)
    except RuntimeError as error:
        raise FileFormatError(f"{path} must fit this model, got {error}") from error
    if kind == "retrieved":
        merge_lora(other.generator)
    return other
