"""Shared models: one copy of the weights per model and device in a process, for all environments."""

from __future__ import annotations

from pathlib import Path

import torch

from mirage_sim.checkpoints import load_world_model
from mirage_sim.errors import InputError
from mirage_sim.model.world_model import WorldModel

_Key = tuple[str, str, tuple[tuple[int, int], ...]]
_models: dict[_Key, WorldModel] = {}


def shared_model(world_model: str | Path | WorldModel, device: str) -> WorldModel:
    """Find or load a model.

    Args:
        world_model: "embedded", a folder, or a model, which is given back as it is.
        device: Where it is to be.

    Returns:
        The model that every environment with the same arguments gets. A folder that has changed since is
        loaded, and checked, anew.

    Raises:
        InputError: If the device is unknown or not there, or is not the one of a model given.
        FileFormatError: If the folder holds no sound model.
    """
    if isinstance(world_model, WorldModel):
        if device != "cpu" and torch.device(device).type != world_model.device.type:
            raise InputError(f"device must be the model's own, {world_model.device}, got {device!r}")
        return world_model
    key = (_resolved(world_model), str(device), _versions(world_model))
    if key not in _models:
        _models[key] = load_world_model(world_model, device=device)
        for older in [other for other in _models if other[:2] == key[:2] and other != key]:
            del _models[older]
    return _models[key]


def _resolved(world_model: str | Path) -> str:
    return "embedded" if str(world_model) == "embedded" else str(Path(world_model).resolve())


def _versions(world_model: str | Path) -> tuple[tuple[int, int], ...]:
    """Time of change and size of the model's files, which tell a folder that was written anew."""
    if str(world_model) == "embedded":
        return ()
    folder = Path(world_model)  # parts of a full-size model lie in folders of their own
    paths = [folder, *sorted(folder.glob("*")), *sorted(folder.glob("*/*"))]
    return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file())
