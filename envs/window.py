"""Window: shows frames to a person, for `render_mode="human"`."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mirage_sim.errors import StateError


def display_available() -> bool:
    """Whether this process can open a window."""
    if sys.platform in ("darwin", "win32"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


class Window:
    """A matplotlib window that opens with its first frame."""

    def __init__(self, title: str) -> None:
        """Remember the title.

        Args:
            title: Title of the window.
        """
        self._title = title
        self._figure: Any = None
        self._image: Any = None

    def show(self, frame: NDArray[np.uint8]) -> None:
        """Show a frame.

        Args:
            frame: uint8 [H, W, 3].

        Raises:
            StateError: If no window can be opened.
        """
        import matplotlib.pyplot as plt

        if self._figure is None:
            self._open(plt, frame)
        self._image.set_data(frame)
        self._figure.canvas.draw_idle()
        self._figure.canvas.flush_events()

    def close(self) -> None:
        """Close the window; may be called more than once."""
        if self._figure is not None:
            import matplotlib.pyplot as plt

            plt.close(self._figure)
            self._figure = self._image = None

    def _open(self, plt: Any, frame: NDArray[np.uint8]) -> None:
        from matplotlib.backends.registry import BackendFilter, backend_registry

        backend = str(plt.get_backend())
        windowed = backend_registry.list_builtin(BackendFilter.INTERACTIVE)  # type: ignore[no-untyped-call]
        if backend.lower() not in windowed:
            raise StateError(
                f'render_mode "human" must have a matplotlib backend that opens windows, got {backend!r}: '
                'install a toolkit such as PyQt or Tk, or use "rgb_array"'
            )
        self._figure, axes = plt.subplots(num=self._title)
        axes.set_axis_off()
        self._image = axes.imshow(frame)
        self._figure.show()
