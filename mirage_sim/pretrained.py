"""Pretrained: a model of transformers from a local folder; what does not fit is an error that lists it."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import torch

from mirage_sim.errors import FileFormatError, listed


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Returns:
        The object.

    Raises:
        FileFormatError: If it is missing or holds something else.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FileFormatError(f"{path} must be a JSON file, got {error}") from error
    if not isinstance(values, dict):
        raise FileFormatError(f"{path} must hold a JSON object, got {type(values).__name__}")
    return values


def read_config(folder: Path, kinds: Collection[str]) -> dict[str, Any]:
    """Read the configuration of a model that is of one of some kinds.

    Args:
        folder: Where `save_pretrained` wrote.
        kinds: `model_type` that it may have.

    Returns:
        `config.json`.

    Raises:
        FileFormatError: If it is missing, or the model is of another kind.
    """
    config = read_json(folder / "config.json")
    if config.get("model_type") not in kinds:
        raise FileFormatError(f"{folder} must hold one of {kinds}, got {config.get('model_type')!r}")
    return config


def load_pretrained(loader: Any, folder: Path, dtype: torch.dtype) -> Any:
    """Load a model of transformers from safetensors.

    Args:
        loader: A class with `from_pretrained`.
        folder: Where `save_pretrained` wrote.
        dtype: Of the weights.

    Returns:
        The model on the CPU, in evaluation mode, without gradients.

    Raises:
        FileFormatError: If files are missing or damaged, or tensors are missing, left over or mis-shaped.
    """
    strict = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        # Shapes that do not fit are told only when they are let pass; they are refused below.
        model, told = loader.from_pretrained(folder, dtype=dtype, ignore_mismatched_sizes=True, **strict)
    except Exception as error:
        raise FileFormatError(f"{folder} must hold a model for {loader.__name__}, got {error}") from error
    kinds = ("missing", "unexpected", "mismatched")
    wrong = {kind: sorted(map(str, told.get(f"{kind}_keys", ()))) for kind in kinds}
    if any(wrong.values()):
        some = {kind: listed(names) for kind, names in wrong.items() if names}
        raise FileFormatError(f"{folder} must hold the tensors of {type(model).__name__}, got {some}")
    return model.requires_grad_(False).eval()
