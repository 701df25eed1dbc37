"""Arrays at the border: what users hand over becomes an array or a tensor of our own, or an error of ours.

Read-only, big-endian, strided and reversed arrays, tensors of any device, dtype and grad mode are all copied
here and nowhere else: native byte order, contiguous, writable, and never a view of the caller's memory. Torch
is imported only where it is needed, so that rooms without networks stay light.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from mirage_sim.errors import InputError, InputTypeError, check_shape

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Array = np.ndarray[Any, Any]


def own_array(name: str, value: Any) -> Array:
    """Copy numbers into an array.

    Args:
        name: Argument name for messages.
        value: A number, an array, a tensor, or nested sequences of them.

    Returns:
        The copy, in the dtype of `value`; what NumPy does not know, such as bfloat16, becomes float32, and
        long doubles become float64.

    Raises:
        InputTypeError: If it holds anything but booleans, integers and real numbers, or a tensor without
            values of its own (sparse, quantised or on "meta").
        InputError: If elements of a masked array are masked.
    """
    if is_tensor(value):
        value = _plain(name, value)
    elif isinstance(value, list | tuple) and any(is_tensor(part) for part in value):
        value = [own_array(f"{name}[{index}]", part) for index, part in enumerate(value)]
    _check_unmasked(name, value)
    try:
        array: Array = np.array(value, order="C", subok=False)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputTypeError(f"{name} must be an array of numbers, got {_told(value)}") from error
    if array.dtype.kind not in "biuf":
        raise InputTypeError(f"{name} must be an array of numbers, got dtype {array.dtype}")
    known = np.dtype(np.float64) if array.dtype.char == "g" else array.dtype.newbyteorder("=")
    return array.astype(known, copy=False)


def own_floats(
    name: str,
    value: Tensor | Array,
    dtype: torch.dtype | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Copy an array or a tensor of floating-point numbers into a tensor without gradients.

    Args:
        name: Argument name for messages.
        value: Array or tensor.
        dtype: Wanted dtype; that of `value` if `None`.
        device: Where the copy goes; where `value` is if `None`.

    Returns:
        The copy. A value beyond the range of `dtype` becomes infinite.

    Raises:
        InputTypeError: If it is no tensor or array, or a tensor without values of its own.
        InputError: If its dtype is not a floating one, or elements are masked.
    """
    import torch

    if isinstance(value, torch.Tensor):
        if not value.is_floating_point():
            raise InputError(f"{name} must have a floating dtype, got {value.dtype}")
        _check_dense(name, value)
        kept = value.dtype if value.dtype.itemsize > 1 else torch.float32  # no arithmetic in eight bits
        target, wanted = device if device is not None else value.device, dtype if dtype is not None else kept
        plain = value.detach().resolve_neg().contiguous()
        return plain.to(target, wanted, copy=True)
    if not isinstance(value, np.ndarray):
        raise InputTypeError(f"{name} must be a tensor or an array, got {type(value).__name__}")
    if value.dtype.kind != "f":
        raise InputError(f"{name} must have a floating dtype, got {value.dtype}")
    return torch.from_numpy(own_array(name, value)).to(device if device is not None else "cpu", dtype)


def check_tensor(name: str, value: Any, expected: Sequence[int | str | None]) -> None:
    """Raise unless `value` is a tensor of floating-point numbers of the expected shape.

    Args:
        name: Argument name for the message.
        value: What should be one.
        expected: See `check_shape`.

    Raises:
        InputTypeError: If it is no tensor.
        InputError: If its dtype is not a floating one, or the shape differs.
    """
    if not is_tensor(value):
        raise InputTypeError(f"{name} must be a tensor, got {type(value).__name__}")
    if not value.is_floating_point():
        raise InputError(f"{name} must have a floating dtype, got {value.dtype}")
    check_shape(name, value, expected)


def is_tensor(value: Any) -> TypeGuard[Tensor]:
    """Tell whether this is a tensor, without importing torch: where it is not imported, there are none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _plain(name: str, tensor: Tensor) -> Array:
    """Give a tensor's values as an array that may share its memory."""
    _check_dense(name, tensor)
    values = tensor.detach().resolve_conj().resolve_neg().cpu()
    if values.is_floating_point() and values.dtype.itemsize < 8 and str(values.dtype) != "torch.float16":
        values = values.float()  # bfloat16 and eight bits, which NumPy does not know
    array: Array = values.numpy()
    return array


def _check_dense(name: str, tensor: Tensor) -> None:
    strided = str(tensor.layout) == "torch.strided" and not tensor.is_nested
    if not strided or tensor.is_quantized or tensor.device.type == "meta":
        came = f"{tensor.layout} {tensor.dtype} on {tensor.device}"
        raise InputTypeError(f"{name} must be a dense tensor with values, got {came}")


def _check_unmasked(name: str, value: Any) -> None:
    masked = int(np.ma.getmaskarray(value).sum()) if isinstance(value, np.ma.MaskedArray) else 0
    if masked:
        raise InputError(f"{name} must have no masked elements, got {masked} (fill them first)")


def _told(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:80]}..."
