"""Recording, columns: the rows of one dataset as they come, and of values that come and go."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np

from mirage_sim.errors import InputError
from mirage_sim.recording.schema import mask_name

Array = np.ndarray[Any, Any]

SINGLE_ROW_BYTES = 8192
"""Rows of at least this size get a chunk each; smaller ones share one of about twice the size."""


@dataclass(frozen=True)
class Packing:
    """How the datasets of an episode are compressed."""

    compression: str | None
    """"gzip", "lzf" or None."""
    level: int | None
    """gzip level."""


class Column:
    """Rows of one dataset, all of one shape and dtype; holds back less than a chunk of them."""

    def __init__(
        self,
        group: h5py.Group,
        name: str,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        packing: Packing,
        rows: int = 0,
        fill: float | None = None,
    ) -> None:
        """Make the dataset.

        Args:
            group: Where it goes.
            name: Its name.
            shape: Of a row.
            dtype: Of a row.
            packing: Compression.
            rows: Rows to begin with, which hold the fill value and take no room.
            fill: Their value; by default NaN, or 0 where the dtype is none of floats.
        """
        self.name = name
        self.shape, self.dtype = shape, dtype
        self._group, self._packing = group, packing
        self._rows: list[Array] = []
        self._written = rows
        self._rows_per_chunk = 1
        row_bytes = dtype.itemsize * int(np.prod(shape))
        if row_bytes < SINGLE_ROW_BYTES:
            self._rows_per_chunk = min(1024, 2 * SINGLE_ROW_BYTES // max(1, row_bytes))
        self.dataset = group.create_dataset(
            name,
            shape=(rows, *shape),
            maxshape=(None, *(size or None for size in shape)),
            dtype=dtype,
            chunks=(self._rows_per_chunk, *(max(1, size) for size in shape)),
            compression=packing.compression,
            compression_opts=packing.level,
            fillvalue=fill_value(dtype) if fill is None else fill,
        )

    def check(self, row: Array) -> None:
        """Raise unless a row has the shape and dtype of the others."""
        if row.shape != self.shape or row.dtype != self.dtype:
            first, now = (f"{each.dtype}{list(each.shape)}" for each in (self, row))
            raise InputError(f"{self.name} must stay {first} in an episode, got {now}")

    @property
    def is_due(self) -> bool:
        """Whether the next row goes to the dataset, with those held back."""
        return len(self._rows) + 1 >= self._rows_per_chunk

    def append(self, row: Array, place: int) -> None:
        """Add a row.

        Args:
            row: It.
            place: Number of rows before it. Where one more is held back, an interrupt left it, and it goes.
        """
        del self._rows[place - self._written :]
        due = self.is_due
        self._rows.append(row)
        if due:
            self.flush(place + 1)

    def flush(self, count: int) -> None:
        """Bring the rows to the dataset, which holds `count` then."""
        del self._rows[count - self._written :]
        if self._rows:
            self.dataset.resize(count, axis=0)
            self.dataset[self._written :] = np.stack(self._rows)
            self._rows.clear()
            self._written = count

    def widened(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[Column, bool]:
        """Put a dataset of larger rows in place of this one, in which the present rows fill the first corner.

        Args:
            shape: At least as large in each dimension, with further dimensions behind the present ones.
            dtype: One that holds the present values.

        Returns:
            The column to go on with, and whether the dtype rounds some of the present values.
        """
        self.flush(self._written + len(self._rows))
        before = self.dataset
        rounded = False
        # HDF5 keeps a dataset without a name until it is closed.
        del self._group[self.name]
        wide = Column(self._group, self.name, shape, dtype, self._packing, len(before))
        behind = (1,) * (len(shape) - len(self.shape))
        corner = tuple(slice(0, size) for size in (*self.shape, *behind))
        for start in range(0, len(before), self._rows_per_chunk):
            block = before[start : start + self._rows_per_chunk]
            rounded = rounded or is_rounded(block, dtype)
            wide.dataset[(slice(start, start + len(block)), *corner)] = block.reshape(*block.shape, *behind)
        return wide, rounded

    def trim(self, shape: tuple[int, ...]) -> None:
        """Make the rows of the dataset smaller, when all have come.

        Args:
            shape: At most as large in each dimension.
        """
        if shape != self.shape:
            self.dataset.resize((self._written, *shape))


class SparseColumn:
    """Values that may be missing at some steps, and whose shape and dtype may change.

    A mask beside them says which elements came; it is made once one is missing. Where values grow, the room
    for them at least doubles, so that a value that grows with each step costs few rewrites; what stays empty
    goes at the end.
    """

    def __init__(self, group: h5py.Group, name: str, value: Array, packing: Packing, rows: int) -> None:
        """Make the dataset for the first value.

        Args:
            group: Where it goes.
            name: Its name.
            value: The first value; it is not added yet.
            packing: Compression.
            rows: Steps before, at which it was missing.
        """
        self._group, self._packing = group, packing
        self._values = Column(group, name, value.shape, value.dtype, packing, rows)
        self._mask = self._make_mask(rows, came=0) if rows else None
        self._extent = value.shape
        self._rounded = self._warned = False

    def is_due(self, value: Array | None) -> bool:
        """Whether adding this value works on the datasets."""
        plain = value is not None and self._fits(value) and self._mask is None
        return not plain or self._values.is_due

    def append(self, value: Array | None, place: int) -> None:
        """Add the value of a step.

        Args:
            value: None where it is missing.
            place: See `Column.append`.
        """
        if value is not None and self._mask is None and self._fits(value):
            self._values.append(value, place)
            return
        if value is not None:
            value = self._make_room(value, place)
        row = np.full(self._values.shape, fill_value(self._values.dtype), self._values.dtype)
        came = np.zeros(row.shape, np.uint8)
        if value is not None:
            corner = tuple(slice(0, size) for size in value.shape)
            row[corner] = value
            came[corner] = 1
        if self._mask is None and not came.all():
            self._mask = self._make_mask(place, came=1)
        self._values.append(row, place)
        if self._mask is not None:
            self._mask.append(came, place)

    def warn(self) -> None:
        """Warn once where the dtype rounds values that came; not within a step, since a warning may raise."""
        if self._rounded and not self._warned:
            self._warned = True
            message = f"{self._values.name} holds integers beyond 2**53, which {self._values.dtype} rounds"
            warnings.warn(message, RuntimeWarning, stacklevel=4)

    def finish(self, count: int) -> None:
        """Bring the rows to the datasets, which hold `count` then, and give up what room is left."""
        for column in (self._values, self._mask):
            if column is not None:
                column.flush(count)
                column.trim(self._extent)

    def _fits(self, value: Array) -> bool:
        return bool(value.shape == self._values.shape and value.dtype == self._values.dtype)

    def _make_room(self, value: Array, place: int) -> Array:
        """Widen the dataset so that it holds this value too, and return it with as many dimensions."""
        dtype = np.result_type(value.dtype, self._values.dtype)
        sizes, extent, wanted = list(self._values.shape), list(self._extent), list(value.shape)
        for each in (sizes, extent, wanted):
            each.extend([1] * (max(len(sizes), len(wanted)) - len(each)))
        shape = tuple(
            size if want <= size else max(want, 2 * size) for size, want in zip(sizes, wanted, strict=True)
        )
        self._extent = tuple(max(pair) for pair in zip(extent, wanted, strict=True))
        if shape != self._values.shape:
            mask = self._make_mask(place, came=1) if self._mask is None else self._mask
            self._mask, _ = mask.widened(shape, mask.dtype)
        self._rounded |= is_rounded(value, dtype)
        if (shape, dtype) != (self._values.shape, self._values.dtype):
            self._values, rounded = self._values.widened(shape, dtype)
            self._rounded |= rounded
        return value.reshape(wanted)

    def _make_mask(self, rows: int, came: int) -> Column:
        name, dtype = mask_name(self._values.name), np.dtype(np.uint8)
        return Column(self._group, name, self._values.shape, dtype, self._packing, rows, fill=came)


def fill_value(dtype: np.dtype[Any]) -> float:
    """What stands where there is no value: NaN, or 0 where the dtype is none of floats."""
    return float("nan") if dtype.kind == "f" else 0


def is_rounded(values: Array, dtype: np.dtype[Any]) -> bool:
    """Whether floats of this dtype cannot tell some of these integers from their neighbours."""
    if values.dtype.kind not in "iu" or dtype.kind not in "fc":
        return False
    return bool(((values > 2**53) | (values < -(2**53))).any())
