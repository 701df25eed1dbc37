"""Store: the step that puts a state on disk, whole or not at all, and refuses one that was damaged.

A folder holds one JSON file and the safetensors file that it names. The name carries the file's hash, so the
rename of the JSON file is the one moment at which the new state replaces the old.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from mirage_sim.errors import FileFormatError
from mirage_sim.files import made_folder, whole_file

SCHEMA_VERSION = 1
"""Version of the folder's layout; another one is refused."""


def save_state(
    folder: Path | str,
    kind: str,
    tensors: dict[str, Tensor],
    about: dict[str, Any],
) -> None:
    """Save tensors and what is to be known about them.

    Args:
        folder: Made if it does not exist.
        kind: What is saved; the base name of the files.
        tensors: Tensors by name, on any device.
        about: Anything that JSON can hold.

    Raises:
        FileWriteError: If it cannot be written; then what was saved there before is still whole, and nothing
            new is left behind.

    Source: ours.
    """
    folder = Path(folder)
    content = save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    digest = hashlib.sha256(content).hexdigest()
    name = f"{kind}-{digest[:16]}.safetensors"
    header = {
        "kind": kind,
        "schema_version": SCHEMA_VERSION,
        "tensors": name,
        "sha256": digest,
        "bytes": len(content),
        "about": about,
    }
    text = (json.dumps(header, indent=1, sort_keys=True) + "\n").encode()
    header_path = folder / f"{kind}.json"
    with made_folder(folder):
        try:
            _write(folder / name, content)
            _write(header_path, text)
        except BaseException:
            if not _may_name(header_path, name):
                with contextlib.suppress(OSError):
                    (folder / name).unlink()
            raise
    for stale in folder.glob(f"{kind}-*.safetensors"):
        if stale.name != name:
            stale.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def _may_name(header_path: Path, name: str) -> bool:
    """Whether the JSON file names this tensors' file, or may do so but cannot be read."""
    try:
        return name in header_path.read_text()
    except OSError:
        return header_path.exists()


def load_state(folder: Path | str, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Load what `save_state` saved, after checking it.

    Args:
        folder: Where it was saved.
        kind: What was saved.

    Returns:
        The tensors on the CPU and what is to be known about them.

    Raises:
        FileFormatError: If a file is missing, truncated, tampered with, or of another kind or version.

    Source: ours.
    """
    folder = Path(folder)
    path = folder / f"{kind}.json"
    try:
        header = json.loads(path.read_bytes())
    except OSError as error:
        raise FileFormatError(f"{path} must be a readable file, got {error}") from error
    except ValueError as error:
        raise FileFormatError(f"{path} must be JSON, got {error}") from error
    fields = {"kind": str, "schema_version": int, "tensors": str, "sha256": str, "bytes": int, "about": dict}
    wrong = [
        name
        for name, of in fields.items()
        if not (isinstance(header, dict) and isinstance(header.get(name), of))
    ]
    if wrong:
        raise FileFormatError(f"{path} must hold {sorted(fields)}, got no valid {wrong}")
    if header["kind"] != kind:
        raise FileFormatError(f"{path} must be of kind {kind!r}, got {header['kind']!r}")
    if header["schema_version"] != SCHEMA_VERSION:
        raise FileFormatError(
            f"{path} must have schema_version {SCHEMA_VERSION}, got {header['schema_version']}"
        )
    content = _read_tensors(folder, header)
    try:
        return load(content), header["about"]
    except SafetensorError as error:
        raise FileFormatError(f"{header['tensors']} must be safetensors, got {error}") from error


def _read_tensors(folder: Path, header: dict[str, Any]) -> bytes:
    """Read the tensors' file and check its size and hash."""
    if Path(header["tensors"]).name != header["tensors"]:
        raise FileFormatError(f"tensors must name a file in the folder, got {header['tensors']!r}")
    path = folder / header["tensors"]
    try:
        content: bytes = path.read_bytes()
    except OSError as error:
        raise FileFormatError(f"{path} must be a readable file, got {error}") from error
    if len(content) != header["bytes"]:
        raise FileFormatError(
            f"{path} must have {header['bytes']} bytes, got {len(content)}: it is truncated"
        )
    digest = hashlib.sha256(content).hexdigest()
    if digest != header["sha256"]:
        raise FileFormatError(f"{path} must have the sha256 {header['sha256']}, got {digest}: it was changed")
    return content
