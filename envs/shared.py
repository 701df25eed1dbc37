"""Shared models: one copy of the weights per model and device in a process, for all environments."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mirage_sim.arguments import check_world_model
from mirage_sim.checkpoints import load_world_model
from mirage_sim.checkpoints.folder import holds_checkpoint
from mirage_sim.errors import InputError
from mirage_sim.folders import visible
from mirage_sim.model.full_size import full_size_config
from mirage_sim.model.world_model import WorldModel, check_settings

_Settings = Mapping[str, int | float]
_Key = tuple[str, str, tuple[tuple[int, int], ...]]
_models: dict[_Key, WorldModel] = {}


def shared_model(
    world_model: str | Path | WorldModel, device: str, settings: _Settings | None = None
) -> WorldModel:
    """Find or load a model.

    Args:
        world_model: "embedded", a folder, or a model, which is given back as it is but for the settings.
        device: Where it is to be.
        settings: Fields of its config that are to differ.

    Returns:
        The model that every environment with the same arguments gets; others share its weights. A folder that
        has changed since is loaded, and checked, anew.

    Raises:
        InputError: If the device is unknown or not there, or is not the one of a model given, or a setting is
            unknown or does not fit.
        FileFormatError: If the folder holds no sound model.
    """
    given: dict[str, Any] = dict(settings or {})
    check_settings("model_settings", given)
    if isinstance(world_model, WorldModel):
        if device != "cpu" and torch.device(device).type != world_model.device.type:
            raise InputError(f"device must be the model's own, {world_model.device}, got {device!r}")
        return world_model.with_settings(**given) if given else world_model
    check_world_model("world_model", world_model)
    key = (_resolved(world_model), str(device), _versions(world_model))
    full_size = str(world_model) != "embedded" and holds_checkpoint(Path(world_model))
    if key not in _models:
        first: dict[str, Any] = given if full_size else {}  # they decide what fits
        _models[key] = load_world_model(world_model, device=device, **first)
        for older in [other for other in _models if other[:2] == key[:2] and other != key]:
            del _models[older]
    model = _models[key]
    if not full_size:
        return model.with_settings(**given) if given else model
    wanted = full_size_config(model.config.generator, **given)
    return model if wanted == model.config else model.with_settings(**vars(wanted))


def _resolved(world_model: str | Path) -> str:
    return "embedded" if str(world_model) == "embedded" else str(Path(world_model).resolve())


def _versions(world_model: str | Path) -> tuple[tuple[int, int], ...]:
    """Time of change and size of the model's files, which tell a folder that was written anew."""
    if str(world_model) == "embedded":
        return ()
    folder = Path(world_model)  # parts of a full-size model lie in folders of their own
    paths = [folder, *visible(folder), *visible(folder, "*/*")]
    return tuple((path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path.is_file())
