"""Weights: the networks that a baseline has of its own, trained for what its memory tells.

Resampler and memory branch are what looks at a read; everything else is the embedded model's.
"""

from __future__ import annotations

import copy
import hashlib
from importlib.resources import as_file, files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mirage_sim.errors import FileFormatError
from mirage_sim.model.world_model import WorldModel, stays_float32

KINDS = ("colours", "appended")


def own_parts(model: WorldModel) -> dict[str, nn.Module]:
    """Networks that look at what was read, by name."""
    return {"resampler": model.resampler, "branch": model.generator.branch}


def with_own_parts(model: WorldModel, extras: bool) -> WorldModel:
    """Copy a model so that the parts a baseline trains are its own; the rest is shared.

    Args:
        model: The embedded model.
        extras: Whether the baseline tells more than latents and mask.

    Returns:
        The copy.
    """
    other = model.with_settings(extras=extras)
    other.resampler = copy.deepcopy(model.resampler)
    other.generator = copy.copy(model.generator)
    other.generator._modules = dict(model.generator._modules)
    other.generator.branch = copy.deepcopy(model.generator.branch)
    return other


def shared_digest(model: WorldModel) -> str:
    """Digest of the weights that a baseline's own parts were trained beside: codec and backbone."""
    digest = hashlib.sha256()
    for module in (model.codec, model.generator.backbone):
        for name, tensor in sorted(module.state_dict().items()):
            stored = tensor.detach().to("cpu", torch.bfloat16).contiguous()
            digest.update(name.encode() + stored.view(torch.int16).numpy().tobytes())
    return digest.hexdigest()


def save_baseline(model: WorldModel, path: Path) -> None:
    """Write a baseline's own weights in 16 bit, norms in 32.

    Args:
        model: What `with_own_parts` gave, trained.
        path: safetensors file.
    """
    tensors = {
        name: tensor.detach().to("cpu", torch.float32 if stays_float32(name) else torch.bfloat16).contiguous()
        for name, tensor in nn.ModuleDict(own_parts(model)).state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file(tensors, temporary, {"base": shared_digest(model)})
    temporary.replace(path)


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
    other = with_own_parts(model, extras=kind != "appended")
    try:
        nn.ModuleDict(own_parts(other)).load_state_dict(tensors)
    except RuntimeError as error:
        raise FileFormatError(f"{path} must fit this model, got {error}") from error
    return other
