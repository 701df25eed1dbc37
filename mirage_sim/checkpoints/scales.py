"""Scales: what the products of published adapters are multiplied by, and how that goes into their tensors.

peft and diffusers tell it beside the tensors (`adapter_config.json`, or the metadata of the file), kohya's
trainers as a tensor `alpha` of every layer; without either the product is added as it is.

Source: conventions of peft 0.21, diffusers 0.42 and kohya's trainers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from mirage_sim.checkpoints.names import ALPHA
from mirage_sim.errors import FileFormatError, listed
from mirage_sim.pretrained import read_json

PEFT_FILES = ("adapter_model.safetensors", "adapter_model.bin")
PEFT_CONFIG = "adapter_config.json"
DIFFUSERS_KEY = "lora_adapter_metadata"
_PLAIN = {"use_dora": False, "alpha_pattern": {}, "bias": "none", "lora_bias": False}
"""What a configuration must say where it says it: anything else computes something else."""


def adapter_scales(path: Path, stored: Mapping[str, Tensor]) -> dict[str, float]:
    """Find what every adapter of a file is multiplied by.

    Args:
        path: The file.
        stored: Its tensors by our names, with `<module>.alpha` where it holds them.

    Returns:
        Scales by module.

    Raises:
        FileFormatError: If an alpha is no finite number, stands alone, or contradicts what is told beside the
            tensors, or adapters are of a kind that computes something else.
    """
    ranks = {
        name.removesuffix(".lora_A.weight"): tensor.shape[0]
        for name, tensor in stored.items()
        if name.endswith(".lora_A.weight")
    }
    alphas = {
        name.removesuffix(f".{ALPHA}"): tensor
        for name, tensor in stored.items()
        if name.endswith(f".{ALPHA}")
    }
    bad = [name for name, alpha in alphas.items() if alpha.numel() != 1 or not bool(alpha.isfinite().all())]
    if bad:
        raise FileFormatError(f"{path} must hold one finite alpha for a layer, got others for {listed(bad)}")
    told = _told_beside(path)
    if alphas and told:
        raise FileFormatError(
            f"{path} must tell scales in one way, got {len(alphas)} tensors of alpha and a configuration"
        )
    if told:
        return {module: _peft_scale(path, told, rank) for module, rank in ranks.items()}
    return {
        module: float(alphas[module]) / rank if module in alphas else 1.0 for module, rank in ranks.items()
    }


def scaled_adapters(
    path: Path, adapters: Mapping[str, Tensor], scales: Mapping[str, float]
) -> dict[str, Tensor]:
    """Put scales into the second halves, so that the products alone are what is added.

    The half is multiplied in float64 and rounded once, to float32: for the usual powers of two nothing is
    rounded at all. A half whose scale is 1 stays as it is.

    Args:
        path: File that they come from.
        adapters: Both halves by our names.
        scales: By module.

    Returns:
        Both halves.

    Raises:
        FileFormatError: If a scaled half is beyond the range of float32.
    """
    scaled = dict(adapters)
    for module, scale in scales.items():
        if scale != 1.0:
            name = f"{module}.lora_B.weight"
            scaled[name] = (adapters[name].double() * scale).float()
            if bool(scaled[name].isinf().any()) and not bool(adapters[name].isinf().any()):
                raise FileFormatError(f"{path} must have scales that float32 can hold, got {scale:g}")
    return scaled


def _told_beside(path: Path) -> dict[str, Any]:
    """Read peft's configuration of adapters, beside the file or in its metadata; empty if there is none.

    diffusers writes that of every network with the network's name in front, such as `transformer.r`.
    """
    config = path.with_name(PEFT_CONFIG)
    if path.name in PEFT_FILES and config.is_file():
        return read_json(config)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get(DIFFUSERS_KEY, "{}"))
        return {name.removeprefix("transformer."): value for name, value in dict(values).items()}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} must tell adapters in {DIFFUSERS_KEY}, got {error}") from error


def _peft_scale(path: Path, told: Mapping[str, Any], rank: int) -> float:
    other = {key: told[key] for key, plain in _PLAIN.items() if key in told and (told[key] or plain) != plain}
    alpha = told.get("lora_alpha")
    if other or isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        wanted = {key: _PLAIN[key] for key in other} | {"lora_alpha": "a number"}
        raise FileFormatError(f"{path} must be of adapters with {wanted}, got {other} and alpha {alpha!r}")
    return alpha / math.sqrt(rank) if told.get("use_rslora") else alpha / rank
