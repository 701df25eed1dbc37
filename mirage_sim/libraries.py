"""Libraries: names of other projects' modules that are imported only where they are used.

What is large, or pulls other libraries in, is imported here and not at the head of a file. Where such a
library, or one that it imports, is installed but does not work, the error names it.
"""

from __future__ import annotations

import importlib
from types import TracebackType
from typing import Any

from mirage_sim.errors import LibraryError


def from_library(module: str, name: str) -> Any:
    """Import a name from another project's module.

    Args:
        module: For example "diffusers.hooks".
        name: Of a class or function in it.

    Returns:
        The class or function.

    Raises:
        LibraryError: If the module, or anything that it imports, cannot be imported.
    """
    try:
        return getattr(importlib.import_module(module), name)
    except Exception as error:
        top = module.partition(".")[0]
        if isinstance(error, ModuleNotFoundError) and error.name == top:
            raise LibraryError(f"{top} is needed here and is not installed") from error
        origin = _origin(error)
        broken = _broken_package(origin) or top
        where = f"{top} needs {broken}, which" if broken != top else top
        raise LibraryError(
            f"{where} does not import here: {type(origin).__name__}: {origin}. Install a {broken} that fits "
            f"the installed torch, or remove it if nothing else needs it"
        ) from error


def _origin(error: BaseException) -> BaseException:
    """What an error was raised from, at the very beginning."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def _broken_package(error: BaseException) -> str | None:
    """Name the package whose module was being imported when an error was raised, if there is one."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return error.name.partition(".")[0]
    found: str | None = None
    place: TracebackType | None = error.__traceback__
    while place is not None:
        if place.tb_frame.f_code.co_name == "<module>":
            found = str(place.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        place = place.tb_next
    return found
