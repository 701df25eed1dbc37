"""Arguments: checks of names, folders and files that need no torch, made before anything is loaded."""

from __future__ import annotations

import difflib
import math
import os
import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mirage_sim.errors import FileFormatError, InputError, reason

EMBEDDED = "embedded"
"""Name of the world model inside the package."""

_DEVICE = re.compile(r"(cpu|cuda|mps|xpu)(:\d+)?")


def check_world_model(argument: str, value: str | Path) -> None:
    """Raise unless a world model is the embedded one, or something that is there.

    Args:
        argument: Name for the message.
        value: What came.

    Raises:
        FileFormatError: If it is neither.
    """
    if str(value) == EMBEDDED or path_exists(Path(value)):
        return
    meant = f'; did you mean "{EMBEDDED}"?' if similar(str(value), [EMBEDDED]) else ""
    raise FileFormatError(
        f'{argument} must be "{EMBEDDED}" or a folder of weights, got {str(value)!r}, '
        f"which does not exist{meant}"
    )


def check_device_name(argument: str, value: str) -> None:
    """Raise unless a device has a name that torch may know; whether it is there is found out later.

    Args:
        argument: Name for the message.
        value: What came.

    Raises:
        InputError: If it has not.
    """
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        raise InputError(f'{argument} must be "cpu", "cuda" or "cuda:N", got {value!r}')


def check_positive(argument: str, value: float) -> None:
    """Raise unless a number is finite and greater than 0.

    Args:
        argument: Name for the message.
        value: What came.

    Raises:
        InputError: If it is not.
    """
    if not 0 < value < math.inf:
        raise InputError(f"{argument} must be a positive number, got {value}")


def check_at_least(argument: str, value: int, least: int) -> None:
    """Raise unless a number is large enough.

    Args:
        argument: Name for the message.
        value: What came.
        least: Smallest that may come.

    Raises:
        InputError: If it is not.
    """
    if value < least:
        raise InputError(f"{argument} must be at least {least}, got {value}")


def check_file(argument: str, path: Path) -> None:
    """Raise unless a file is there.

    Args:
        argument: Name for the message.
        path: What came.

    Raises:
        FileFormatError: If it is not.
    """
    if not path_exists(path):
        raise FileFormatError(f"{argument} must be a file, got {path}, which does not exist")
    if path.is_dir():
        raise FileFormatError(f"{argument} must be a file, got {path}, which is a folder")


def check_folder(argument: str, path: Path) -> None:
    """Raise unless a folder is there.

    Args:
        argument: Name for the message.
        path: What came.

    Raises:
        FileFormatError: If it is not.
    """
    if not path_exists(path):
        raise FileFormatError(f"{argument} must be a folder, got {path}, which does not exist")
    if not path.is_dir():
        raise FileFormatError(f"{argument} must be a folder, got {path}, which is a file")


@contextmanager
def made_for(argument: str, path: Path) -> Iterator[None]:
    """Make a folder for results, and remove it again if the block fails and leaves it empty.

    Args:
        argument: Name for the message.
        path: What came.

    Raises:
        InputError: If it cannot be made or written.
    """
    there = [each for each in (path, *path.parents) if path_exists(each)]
    make_folder(argument, path)
    try:
        yield
    except BaseException:
        for each in (path, *path.parents):
            if each in there:
                break
            with suppress(OSError):
                each.rmdir()
        raise


def make_folder(argument: str, path: Path) -> Path:
    """Make a folder that is to be written to, if it is missing.

    Args:
        argument: Name for the message.
        path: What came.

    Returns:
        The folder.

    Raises:
        InputError: If it cannot be made or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise InputError(f"{argument} must be a folder, got {path}, which is a file") from error
    except (OSError, ValueError) as error:
        raise InputError(
            f"{argument} must be a folder that can be made, got {path}: {reason(error)}"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{argument} must be a folder that can be written, got {path}: Permission denied")
    return path


def make_parent(argument: str, path: Path) -> Path:
    """Make the folder of a file that is to be written, if it is missing.

    Args:
        argument: Name for the message.
        path: The file.

    Returns:
        The file.

    Raises:
        InputError: If it is a folder, or its folder cannot be made or written.
    """
    if path_exists(path) and path.is_dir():
        raise InputError(f"{argument} must be a file, got {path}, which is a folder")
    make_folder(f"the folder of {argument}", path.parent)
    return path


def path_exists(path: Path) -> bool:
    """Whether there is something of this name; a name that no file can have counts as missing."""
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def similar(name: str, known: Collection[str]) -> list[str]:
    """Known names that somebody may have meant, the likeliest first."""
    return difflib.get_close_matches(name, list(known), n=3)
