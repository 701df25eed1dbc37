"""Resume: what a run needs to go on exactly where it was, in a folder that is whole or does not count.

Only what is trained is kept: parameters, their averages, and what the optimiser knows of them. Chance needs
no keeping, since every step draws from its own number. Several processes write their parts of one checkpoint,
by torch's distributed checkpoints.
"""

from __future__ import annotations

import json
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint import state_dict_loader, state_dict_saver
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

from mirage_sim.errors import FileFormatError

_TOLD = "run.json"
_WHOLE = ".metadata"  # written when every part is there
_TRAINED = StateDictOptions(ignore_frozen_params=True, strict=False)


def save_run(
    folder: Path,
    step: int,
    about: dict[str, Any],
    module: nn.Module,
    optimizer: torch.optim.Optimizer,
    averages: list[Tensor] | None,
    main: bool = True,
) -> None:
    """Keep the state after a step; the one before is removed once it is whole.

    Args:
        folder: Of the stage's checkpoints; made if missing.
        step: Steps done.
        about: What a run that goes on must agree with.
        module: Network; every process calls this at the same step.
        optimizer: Of its trained parameters.
        averages: Averaged parameters, if there are any.
        main: Whether this process makes and removes folders.
    """
    place = folder / f"{step:08d}"
    if main:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        (place / _TOLD).write_text(json.dumps({"step": step, "config": about}))
    with _alone():
        state_dict_saver.save(_state(module, optimizer, averages), checkpoint_id=place)
    if main:
        for other in folder.iterdir():
            if other != place:
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
        FileFormatError: If it is of another run.
    """
    whole = sorted(place for place in folder.glob("*") if (place / _WHOLE).is_file())
    if not whole:
        return 0
    told = json.loads((whole[-1] / _TOLD).read_text())
    if told["config"] != about:
        raise FileFormatError(
            f"{folder} was written with {told['config']}, but this run asks for {about}: "
            "name another folder or delete the checkpoint"
        )
    state = _state(module, optimizer, averages)
    with _alone():
        state_dict_loader.load(state, checkpoint_id=whole[-1])
    set_state_dict(
        module,
        optimizer,
        model_state_dict=state["module"],
        optim_state_dict=state["optimizer"],
        options=_TRAINED,
    )
    return int(told["step"])


def _state(
    module: nn.Module, optimizer: torch.optim.Optimizer, averages: list[Tensor] | None
) -> dict[str, Any]:
    parameters, known = get_state_dict(module, optimizer, options=_TRAINED)
    kept = {str(index): average for index, average in enumerate(averages or [])}
    return {"module": parameters, "optimizer": known, "averages": kept}


@contextmanager
def _alone() -> Iterator[None]:
    """Leave out the warning that a single process is one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield
