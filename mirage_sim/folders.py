"""Folders: what is found in them, without what operating systems and editors leave there."""

from __future__ import annotations

from pathlib import Path

_LITTER = ("thumbs.db", "desktop.ini", "__macosx")


def visible(folder: Path, pattern: str = "*") -> list[Path]:
    """List what fits a pattern, sorted, but for hidden names and those within hidden folders.

    Hidden are names that begin with a dot, such as macOS' `._walk.h5` beside `walk.h5`, `.DS_Store`,
    `.ipynb_checkpoints` and files that are still being written, and what Windows and zip files leave behind.

    Args:
        folder: Where to look; empty if it does not exist.
        pattern: As `Path.glob` takes it, relative to the folder.

    Returns:
        The paths.
    """
    return sorted(
        path
        for path in folder.glob(pattern)
        if not any(_hidden(name) for name in path.relative_to(folder).parts)
    )


def _hidden(name: str) -> bool:
    return name.startswith(".") or name.lower() in _LITTER
