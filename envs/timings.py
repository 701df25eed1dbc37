"""Timings: milliseconds of each part of a step, as `info["timings_ms"]` tells them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping


class Timings(Mapping[str, float]):
    """A read-only mapping from part to milliseconds.

    Two of them are equal if they name the same parts: how long a step took is not part of what it did, and
    Gymnasium's checker asks that the same seed and action give an equal `info`.
    """

    def __init__(self, laps: Mapping[str, float]) -> None:
        """Copy the figures.

        Args:
            laps: Milliseconds by part.
        """
        self._laps = dict(laps)

    def __getitem__(self, part: str) -> float:
        """Milliseconds of a part."""
        return self._laps[part]

    def __iter__(self) -> Iterator[str]:
        """Names of the parts."""
        return iter(self._laps)

    def __len__(self) -> int:
        """Number of parts."""
        return len(self._laps)

    def __eq__(self, other: object) -> bool:
        """Whether the parts are the same."""
        return isinstance(other, Timings) and self._laps.keys() == other._laps.keys()

    def __hash__(self) -> int:
        """Hash of the parts."""
        return hash(frozenset(self._laps))

    def __repr__(self) -> str:
        """As a dict."""
        return f"Timings({self._laps})"
