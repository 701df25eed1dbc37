"""Typed errors and argument checks: every message names the argument, what was expected and what came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor


class MirageError(Exception):
    """Base of every error that mirage_sim raises on purpose."""


class InputError(MirageError, ValueError):
    """An argument has the wrong value, shape or dtype."""


class InputTypeError(MirageError, TypeError):
    """An argument has the wrong type."""


class StateError(MirageError, RuntimeError):
    """A call came in the wrong state, for example `step` before `reset`."""


class MissingExtraError(MirageError, ImportError):
    """An optional library is not installed; the message names the extra that brings it."""


class LibraryError(MirageError, ImportError):
    """A library that is needed is installed, or should be, and does not import; the message names it."""


class FileFormatError(MirageError, OSError):
    """A file is missing, truncated, tampered with, or of another kind or version."""


class FileWriteError(MirageError, OSError):
    """A file or folder could not be written; the message names it."""


class RecordingError(MirageError, OSError):
    """A recording could not be written or is in use by another writer."""


def reason(error: BaseException) -> str:
    """Say why an operation failed, without the name of a temporary file that the user never gave."""
    return getattr(error, "strerror", None) or str(error)


_LISTED = 20


def listed(names: Sequence[str]) -> str:
    """Name the first 20, and say how many more there are."""
    rest = len(names) - _LISTED
    return ", ".join(names[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def check_shape(
    name: str, value: Tensor | np.ndarray[Any, Any], expected: Sequence[int | str | None]
) -> None:
    """Raise unless `value` has the expected shape.

    Args:
        name: Argument name for the message.
        value: Array or tensor to check.
        expected: One entry per dimension; `None` or a string stands for any size (the string names it).
            A leading `"..."` stands for any number of leading dimensions.

    Raises:
        InputError: If the shape differs.
    """
    shape = tuple(value.shape)
    wanted = list(expected)
    open_front = bool(wanted) and wanted[0] == "..."
    tail = wanted[1:] if open_front else wanted
    fits = len(shape) >= len(tail) if open_front else len(shape) == len(tail)
    if fits and tail:
        fits = all(
            not isinstance(want, int) or want == got
            for want, got in zip(tail, shape[-len(tail) :], strict=True)
        )
    if not fits:
        text = ", ".join("*" if part is None else str(part) for part in wanted)
        raise InputError(f"{name} must be [{text}], got {list(shape)}")


def check_finite(name: str, value: Tensor | np.ndarray[Any, Any]) -> None:
    """Raise unless every element of `value` is finite.

    Args:
        name: Argument name for the message.
        value: Array or tensor of a floating dtype.

    Raises:
        InputError: If a NaN or an infinity is found.
    """
    magnitude: Any = abs(value)
    bad = int((~(magnitude < float("inf"))).sum())
    if bad:
        raise InputError(
            f"{name} must be finite, got {bad} NaN or infinite values in shape {list(value.shape)}"
        )
