"""Resume: what a run needs to go on exactly where it was, in a folder that is whole or does not count.

Only what is trained is kept: parameters, their averages, and what the optimiser knows of them. Chance needs
no keeping, since every step draws from its own number. Where weights are divided among processes, each writes
its own part; `run.json` comes last and makes the folder count.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from mirage_sim.errors import FileFormatError
from mirage_sim.files import made_folder, whole_file
from mirage_sim.folders import visible
from mirage_sim.training.history import RUN_FILE

_PLACE = r"\d{8}"
"""Names of checkpoints, by their step; copies that somebody made beside them do not count."""
_ADAM = {"step", "exp_avg", "exp_avg_sq"}


def save_run(
    folder: Path,
    step: int,
    about: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor] | None,
) -> None:
    """Keep the state after a step; the one before is removed once it is whole.

    Args:
        folder: Of the stage's checkpoints; made if missing.
        step: Steps done.
        about: What a run that goes on must agree with.
        module: Network; every process calls this at the same step.
        optimizer: Of its trained parameters.
        averages: Averaged parameters, in their order, if there are any.
    """
    place, rank = folder / f"{step:08d}", _rank()
    state = _state(module, optimizer, averages)
    if rank == 0 or any(isinstance(tensor, DTensor) for tensor in state.values()):
        kept = {name: _part(tensor).detach().cpu().contiguous() for name, tensor in state.items()}
        with made_folder(place), whole_file(place / f"{rank}.safetensors") as temporary:
            save_file(kept, temporary)
    _wait()
    if rank == 0:
        with whole_file(place / RUN_FILE) as temporary:
            temporary.write_text(json.dumps({"step": step, "about": about}))
        for other in folder.iterdir():
            if other != place and re.fullmatch(_PLACE, other.name):
                shutil.rmtree(other)


def resume_run(
    folder: Path,
    about: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor] | None,
) -> int:
    """Take a run back to its last whole checkpoint.

    Args:
        folder: Of the stage's checkpoints.
        about: What it must agree with.
        module: Changed in place.
        optimizer: Changed in place.
        averages: Changed in place.

    Returns:
        Steps done; 0 where there is none.

    Raises:
        FileFormatError: If it is of another run, or damaged.
    """
    found = [place for place in visible(folder) if re.fullmatch(_PLACE, place.name)]
    whole = [place for place in found if (place / RUN_FILE).is_file()]
    if not whole:
        return 0
    place = whole[-1]
    try:
        told = json.loads((place / RUN_FILE).read_text())
        step, theirs = int(told["step"]), dict(told["about"])
        own = place / f"{_rank()}.safetensors"
        kept = load_file(own if own.is_file() else place / "0.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise FileFormatError(f"{place} must be a whole checkpoint of a run, got {error!r}") from error
    ours = json.loads(json.dumps(about))
    differing = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if differing:
        values = {name: (theirs.get(name), ours.get(name)) for name in differing}
        raise FileFormatError(
            f"{place} was written by another run, (there, now) {values}: name another folder or delete the "
            "checkpoint"
        )
    _restore(place, kept, module, optimizer, averages)
    return step


def _state(
    module: nn.Module, optimizer: torch.optim.Optimizer, averages: list[Tensor] | None
) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    for index, (name, parameter) in enumerate(_trained(module)):
        state[f"parameter {name}"] = parameter.detach()
        if averages is not None:
            state[f"average {name}"] = averages[index]
        state |= {f"{key} {name}": value for key, value in optimizer.state[parameter].items()}
    return state


@torch.no_grad()
def _restore(
    place: Path,
    kept: dict[str, Tensor],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor] | None,
) -> None:
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in kept.items():
        kind, _, name = key.partition(" ")
        parts.setdefault(name, {})[kind] = tensor
    fused = bool(optimizer.param_groups[0].get("fused"))
    for index, (name, parameter) in enumerate(_trained(module)):
        own, there = parts.get(name, {}), _part(parameter.detach())
        held = {"parameter": there} | ({} if averages is None else {"average": _part(averages[index])})
        known = own.keys() - held.keys()
        fits = all(kind in own and own[kind].shape == tensor.shape for kind, tensor in held.items())
        if not fits or known not in (set(), _ADAM):
            shapes = {kind: list(tensor.shape) for kind, tensor in own.items()}
            raise FileFormatError(f"{place} must hold {name} {list(there.shape)}, got {shapes}")
        for kind, tensor in held.items():
            tensor.copy_(own[kind])
        if known:
            step = own["step"].to(parameter.device) if fused else own["step"]
            rest = {kind: _like(parameter, own[kind]) for kind in known - {"step"}}
            optimizer.state[parameter] = {"step": step} | rest


def _trained(module: nn.Module) -> list[tuple[str, nn.Parameter]]:
    return [(name, each) for name, each in module.named_parameters() if each.requires_grad]


def _part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; all of one that is not divided."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _like(parameter: Tensor, part: Tensor) -> Tensor:
    """A tensor divided like a parameter, of this process's part."""
    there = part.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return there
    mesh, places = parameter.device_mesh, parameter.placements
    return DTensor.from_local(there, mesh, places, shape=parameter.shape, stride=parameter.stride())


def _rank() -> int:
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def _wait() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
