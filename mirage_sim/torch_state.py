"""Torch's process-wide state: what a user's program sets does not reach our computations, nor ours theirs.

Default dtype and device, autocast, grad mode, inference mode and the number of threads are set for the time
of a call and put back after it. Deterministic algorithms need no fence on a CPU, where they change nothing
that we compute; what a CUDA device does with them is left to the user, as are TF32 and torch's back ends.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

import torch

from mirage_sim.threads import threads_to_use

CPU = torch.device("cpu")


class HasThreads(Protocol):
    """What says with how many threads it computes; `None` for the default."""

    threads: int | None


@contextmanager
def own_torch_state(threads: int | None = None) -> Iterator[None]:
    """Compute in float32 on the CPU where nothing else is named, without gradients and without autocast.

    Tensors made inside are ordinary ones, also where the caller is in inference mode.

    Args:
        threads: How many torch uses meanwhile, see `threads_to_use`.

    Raises:
        StateError: If a forked process asks for more than one thread.
    """
    threads_before, dtype_before = torch.get_num_threads(), torch.get_default_dtype()
    wanted = threads_to_use(threads, threads_before)
    with ExitStack() as stack:
        if wanted != threads_before:
            torch.set_num_threads(wanted)
            stack.callback(torch.set_num_threads, threads_before)
        if dtype_before != torch.float32:
            torch.set_default_dtype(torch.float32)
            stack.callback(torch.set_default_dtype, dtype_before)
        if torch.get_default_device() != CPU:
            stack.enter_context(CPU)
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        if torch.is_inference_mode_enabled():
            stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        yield


P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound=HasThreads)


def with_own_torch_state(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Make a method compute in `own_torch_state` with its object's `threads`."""

    @wraps(method)
    def inside(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with own_torch_state(self.threads):
            return method(self, *args, **kwargs)

    return inside
