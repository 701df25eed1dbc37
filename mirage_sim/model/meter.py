"""Meter: what a call multiplies and keeps alive, from a model without weights.

Tensors on the "meta" device have shapes and no values, so that a model of any size runs in no memory. What is
alive is the eager code's: the sum of all tensors but the weights at its worst moment, without workspaces of
kernels, rounding of an allocator or gradients.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from mirage_sim.errors import StateError

_KINDS = {
    "mm": "linear",
    "addmm": "linear",
    "bmm": "linear",
    "_scaled_dot_product_flash_attention": "attention",
    "_scaled_dot_product_efficient_attention": "attention",
    "convolution": "convolution",
}
"""Kind of each operation that torch counts. Attention being one operation, a batched product is a linear
layer whose input does not lie in order."""


@dataclass(frozen=True)
class Flops:
    """Floating-point operations by kind; a product and its sum are two.

    Attributes:
        linear: Of linear layers.
        attention: Queries with keys, and weights with values.
        convolution: Of convolutions, patch embeddings included; padding counts as if it were data.
    """

    linear: int = 0
    attention: int = 0
    convolution: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.linear + self.attention + self.convolution

    def __add__(self, other: Flops) -> Flops:
        """Both, one after the other."""
        return Flops(*(a + b for a, b in zip(asdict(self).values(), asdict(other).values(), strict=True)))

    def __mul__(self, times: int) -> Flops:
        """The same, so many times."""
        return Flops(*(each * times for each in asdict(self).values()))

    def as_dict(self) -> dict[str, int]:
        """By kind, and the total, for JSON."""
        return asdict(self) | {"total": self.total}


@dataclass(frozen=True)
class Measured:
    """What one call takes.

    Attributes:
        flops: What it multiplies.
        peak_bytes: Tensors alive at its worst moment, arguments included, weights left out.
    """

    flops: Flops
    peak_bytes: int


@torch.no_grad()
def measure(call: Callable[[], Any], weights: Iterable[Tensor], alike: Iterable[nn.Module] = ()) -> Measured:
    """Run a call on "meta" tensors and count; attention runs as one kernel without a matrix, as on a GPU.

    Args:
        call: What is run, once.
        weights: Tensors that are no part of what it keeps alive.
        alike: Parts of which those of the same shapes are run once, and counted as often as they are called.

    Returns:
        What it took.

    Raises:
        StateError: If it multiplies in an operation of unknown kind.
    """
    counter, alive = FlopCounterMode(display=False), _Alive(weights)
    repeats = _Repeats(alive, lambda: counter.get_flop_counts().get("Global", {}))
    with _FusedAttention(), counter, alive, repeats.of(alike):
        call()
    return Measured(by_kind(repeats.counts()), alive.peak)


@torch.no_grad()
def peak_with_matrix(
    call: Callable[[], Any], weights: Iterable[Tensor], alike: Iterable[nn.Module] = ()
) -> int:
    """Run a call whose attention writes out the weights of all queries over all keys, in 32 bit.

    Args:
        call: What is run, once.
        weights: Tensors that do not count.
        alike: See `measure`.

    Returns:
        Bytes alive at its worst moment.
    """
    alive = _Alive(weights)
    with alive, _Repeats(alive, dict).of(alike):
        call()
    return alive.peak


def by_kind(counts: Mapping[Any, int]) -> Flops:
    """Sort what torch counted, by operation.

    Args:
        counts: Operations of `torch.ops.aten`, and how many they are.

    Returns:
        The counts by kind.

    Raises:
        StateError: If an operation is of unknown kind.
    """
    sums = asdict(Flops())
    for operation, count in counts.items():
        name = str(operation).removeprefix("aten.")
        if name not in _KINDS:
            raise StateError(f"operations that are counted must be among {sorted(_KINDS)}, got {name}")
        sums[_KINDS[name]] += count
    return Flops(**sums)


def weight_bytes(tensors: Iterable[Tensor]) -> dict[str, int]:
    """Count parameters.

    Args:
        tensors: Of one network.

    Returns:
        `parameters`, those of them in 32 bit (`float32`), and their `bytes`.
    """
    listed = list(tensors)
    return {
        "parameters": sum(each.numel() for each in listed),
        "float32": sum(each.numel() for each in listed if each.dtype == torch.float32),
        "bytes": sum(each.numel() * each.element_size() for each in listed),
    }


class _FusedAttention(TorchFunctionMode):
    """Attention as a GPU runs it; on "meta" torch would take it apart."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func is not torch.nn.functional.scaled_dot_product_attention:
            return func(*args, **named)
        query, key, value = (*args, *(named[name] for name in ("query", "key", "value")[len(args) :]))
        if (mask := named.get("attn_mask")) is None:
            return torch.ops.aten._scaled_dot_product_flash_attention(query, key, value)[0]
        whole = mask.expand(*query.shape[:3], key.shape[2])
        return torch.ops.aten._scaled_dot_product_efficient_attention(query, key, value, whole, False)[0]


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows the bytes of all storages on "meta" that operations make or take."""

    def __init__(self, weights: Iterable[Tensor]) -> None:
        """Begin with nothing alive.

        Args:
            weights: Tensors that do not count.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {_storage(each)._cdata for each in weights}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        self.note((args, kwargs, result))
        return result

    def note(self, tree: Any) -> None:
        """Follow the storages of all tensors in a tree from now on."""
        for tensor in _tensors(tree):
            storage = _storage(tensor)
            if storage._cdata not in self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._free, storage._cdata, storage.nbytes()).atexit = False
        self.peak = max(self.peak, self.now)

    def _free(self, address: int, size: int) -> None:
        self._known.discard(address)
        self.now -= size


@dataclass(frozen=True)
class _Run:
    """What one call of a part took.

    Attributes:
        result: Shape, strides and type of what it gave.
        flops: Operations that torch counted.
        peak: Bytes at its worst moment beyond those that were alive before.
    """

    result: tuple[torch.Size, tuple[int, ...], torch.dtype]
    flops: Mapping[Any, int]
    peak: int


class _Repeats:
    """Runs parts that are alike once, and counts what that took at every further call."""

    def __init__(self, alive: _Alive, flops: Callable[[], Mapping[Any, int]]) -> None:
        """Begin with nothing known.

        Args:
            alive: Follows the bytes.
            flops: Gives what torch has counted so far.
        """
        self._alive, self._flops = alive, flops
        self._runs: dict[Any, _Run] = {}
        self._repeated: Counter[Any] = Counter()

    def counts(self) -> Counter[Any]:
        """Operations that were run, and those that were repeated."""
        return self._repeated + Counter(dict(self._flops()))

    @contextmanager
    def of(self, parts: Iterable[nn.Module]) -> Iterator[None]:
        """Repeat calls of these parts, until the end of the block."""
        listed = list(parts)
        for part in listed:
            part.forward = partial(self._call, part, part.forward)
        try:
            yield
        finally:
            for part in listed:
                del part.forward  # what hid its class's own

    def _call(self, part: nn.Module, forward: Callable[..., Tensor], *given: Any) -> Tensor:
        self._alive.note(given)
        tensors = [*part.parameters(), *_tensors(given)]
        key = (type(part), *((each.shape, each.stride(), each.dtype) for each in tensors))
        if key in self._runs:
            run = self._runs[key]
            self._repeated.update(run.flops)
            self._alive.peak = max(self._alive.peak, self._alive.now + run.peak)
            shape, strides, dtype = run.result
            return torch.empty_strided(shape, strides, dtype=dtype, device="meta")
        alive, before = self._alive, Counter(dict(self._flops()))
        peak, now = alive.peak, alive.now
        alive.peak = now
        result = forward(*given)
        flops = Counter(dict(self._flops())) - before
        self._runs[key] = _Run((result.shape, result.stride(), result.dtype), flops, alive.peak - now)
        alive.peak = max(peak, alive.peak)
        return result


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (each for each in tree_leaves(tree) if isinstance(each, Tensor) and each.device.type == "meta")


def _storage(tensor: Tensor) -> Any:
    return tensor.untyped_storage()
