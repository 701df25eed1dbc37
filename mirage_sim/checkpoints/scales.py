"""Scales of published adapters: the factor of each low-rank product, read and folded into its tensors.

peft and diffusers store it beside the tensors (`adapter_config.json`, or the metadata of the file), kohya's
trainers as a tensor `alpha` for every layer. Without either the factor is 1.

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
"""Settings of peft's configuration that must have these values, if present; others define other layers."""


def adapter_scales(path: Path, stored: Mapping[str, Tensor]) -> dict[str, float]:
    """Return the scale of every adapter of a file.

    Args:
        path: The file.
        stored: Its tensors by our names, with `<module>.alpha` where it holds them.

    Returns:
        Scales by module.

    Raises:
        FileFormatError: If an alpha is no finite number, if the file has both alphas and a configuration, or
            if the adapters are of another kind, such as DoRA.
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
    config = _read_config(path)
    if alphas and config:
        raise FileFormatError(
            f"{path} must hold scales as alphas or in a configuration, got both ({len(alphas)} alphas)"
        )
    if config:
        return {module: _peft_scale(path, config, rank) for module, rank in ranks.items()}
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


def _read_config(path: Path) -> dict[str, Any]:
    """Read peft's configuration of adapters, beside the file or in its metadata; empty if there is none.

    diffusers writes that of every network with the network's name in front, such as `transformer.r`.
    """
    beside = path.with_name(PEFT_CONFIG)
    if path.name in PEFT_FILES and beside.is_file():
        return read_json(beside)
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            values = json.loads((file.metadata() or {}).get(DIFFUSERS_KEY, "{}"))
        return {name.removeprefix("transformer."): value for name, value in dict(values).items()}
    except (OSError, SafetensorError, TypeError, ValueError) as error:
        raise FileFormatError(f"{path} must describe adapters in {DIFFUSERS_KEY}, got {error}") from error


def _peft_scale(path: Path, config: Mapping[str, Any], rank: int) -> float:
    other = {
        key: config[key] for key, plain in _PLAIN.items() if key in config and (config[key] or plain) != plain
    }
    alpha = config.get("lora_alpha")
    if other or isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        wanted = {key: _PLAIN[key] for key in other} | {"lora_alpha": "a number"}
        raise FileFormatError(f"{path} must be of adapters with {wanted}, got {other} and alpha {alpha!r}")
    return alpha / math.sqrt(rank) if config.get("use_rslora") else alpha / rank
