"""Files: tensors out of safetensors, sharded safetensors and PyTorch files, and into shards.

Tensors stay in their file until they are used (it is mapped into memory), so that opening costs no memory.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from mirage_sim.errors import FileFormatError, listed
from mirage_sim.pretrained import read_json

INDEX_ENDING = ".safetensors.index.json"
TORCH_ENDINGS = (".pth", ".pt", ".bin")
SHARD_BYTES = 4 * 2**30


def find_weights(folder: Path, stem: str = "diffusion_pytorch_model") -> Path:
    """Find the index of a sharded file, or the single file, in a folder.

    Args:
        folder: Where to look.
        stem: Name without its ending.

    Returns:
        The index or the file.

    Raises:
        FileFormatError: If neither is there, or both are.
    """
    names = [f"{stem}{INDEX_ENDING}", f"{stem}.safetensors"]
    there = [folder / name for name in names if (folder / name).is_file()]
    if len(there) != 1:
        raise FileFormatError(f"{folder} must hold one of {names}, got {[path.name for path in there]}")
    return there[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read a file of tensors, whichever kind it is.

    Args:
        path: `.safetensors`, the `.safetensors.index.json` of several, or `.pth`, `.pt`, `.bin`.

    Returns:
        Tensors by name, in their stored types, on the CPU.

    Raises:
        FileFormatError: If it is missing, damaged, of another kind, or holds more than tensors.
    """
    if not path.is_file():
        raise FileFormatError(f"{path} must be a file, got none")
    if path.name.endswith(INDEX_ENDING):
        return _read_sharded(path)
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix in TORCH_ENDINGS:
        return _read_torch(path)
    raise FileFormatError(
        f"{path} must end in .safetensors, {INDEX_ENDING} or one of {TORCH_ENDINGS}, got {path.suffix!r}"
    )


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileFormatError(f"{path} must be a whole safetensors file, got {error}") from error


def _read_torch(path: Path) -> dict[str, Tensor]:
    try:
        # Only the newer, zipped kind can be mapped; weights_only keeps a file from running code.
        stored = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise FileFormatError(f"{path} must be a PyTorch file of weights only, got {error}") from error
    # Trainers wrap the tensors, as {"state_dict": {…}} or {"generator": {"vace": {…}}}.
    while isinstance(stored, dict) and len(stored) == 1 and isinstance(next(iter(stored.values())), dict):
        stored = next(iter(stored.values()))
    if not isinstance(stored, dict):
        raise FileFormatError(f"{path} must hold tensors by name, got {type(stored).__name__}")
    others = [str(name) for name, value in stored.items() if not isinstance(value, Tensor)]
    if others:
        raise FileFormatError(f"{path} must hold nothing but tensors by name, got also {listed(others)}")
    return {str(name): tensor.detach() for name, tensor in stored.items()}


def _read_sharded(index: Path) -> dict[str, Tensor]:
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(
        isinstance(name, str) and name == Path(name).name for name in places.values()
    ):
        raise FileFormatError(
            f"{index} must name a file beside it for every tensor in weight_map, got {places!r:.99}"
        )
    tensors, faults = {}, []
    for shard in sorted(set(places.values())):
        held = _read_safetensors(index.parent / shard)
        promised = {name for name, place in places.items() if place == shard}
        faults += [f"{name} not in {shard}" for name in sorted(promised - set(held))]
        faults += [f"{name} in {shard} without being listed" for name in sorted(set(held) - promised)]
        tensors.update(held)
    if faults:
        raise FileFormatError(f"{index} must list what its files hold, got {listed(faults)}")
    return tensors


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def split(tensors: Mapping[str, Tensor], limit: int = SHARD_BYTES) -> list[dict[str, Tensor]]:
    """Deal tensors out to shards, in their order.

    Args:
        tensors: By name.
        limit: Bytes of a shard; a single tensor may be larger.

    Returns:
        The shards, at least one.
    """
    shards: list[dict[str, Tensor]] = [{}]
    room = limit
    for name, tensor in tensors.items():
        if tensor.nbytes > room and shards[-1]:
            shards.append({})
            room = limit
        shards[-1][name] = tensor
        room -= tensor.nbytes
    return shards


def write_shards(tensors: Mapping[str, Tensor], folder: Path, stem: str, limit: int) -> dict[str, list[str]]:
    """Write tensors in their types as `stem.safetensors`, or as `stem-00001-of-00002.safetensors` and so on.

    Args:
        tensors: By name.
        folder: Where to.
        stem: Name of the files without ending.
        limit: Bytes of a file, but for its header.

    Returns:
        Names of the tensors in every file.
    """
    shards = split(tensors, limit)
    written = {}
    for number, shard in enumerate(shards, start=1):
        part = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        name = f"{stem}{part}.safetensors"
        # "format" is what transformers and diffusers look for before they read a file.
        save_file(apart(shard), folder / name, {"format": "pt"})
        written[name] = list(shard)
    return written


def apart(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Bring tensors to the CPU, and copy those that share memory with others or do not lie in one piece."""
    own: dict[str, Tensor] = {}
    seen: set[int] = set()
    for name, somewhere in tensors.items():
        tensor = somewhere.cpu()
        whole = tensor.untyped_storage().nbytes() == tensor.nbytes and tensor.is_contiguous()
        alone = whole and tensor.data_ptr() not in seen
        seen.add(tensor.data_ptr())
        own[name] = tensor if alone else tensor.clone(memory_format=torch.contiguous_format)
    return own
