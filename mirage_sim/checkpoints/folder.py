"""Folder: a full-size model of our own on the disk, and what is in a folder of any kind.

`checkpoint.json` says what it is: kind, version, parts, shapes, and the hash of every file. The tensors lie
in `checkpoint.safetensors`, or in shards of about 4 GiB, by the name of their part and our name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from mirage_sim.checkpoints.checkpoint import (
    Checkpoint,
    adapter_shapes,
    is_official,
    open_diffusers,
    open_official,
    with_adapter_file,
    with_branch_file,
)
from mirage_sim.checkpoints.checks import check_tensors
from mirage_sim.checkpoints.files import (
    SHARD_BYTES,
    read_tensors,
    sha256,
    write_shards,
)
from mirage_sim.checkpoints.shapes import (
    codec_arguments,
    config_values,
    empty_codec,
    make_config,
)
from mirage_sim.errors import FileFormatError, listed
from mirage_sim.files import whole_folder
from mirage_sim.model.generator import empty_generator
from mirage_sim.pretrained import read_json

KIND = "mirage_sim.checkpoint"
SCHEMA_VERSION = 1
CONFIG_FILE = "checkpoint.json"
STEM = "checkpoint"
PARTS = ("backbone", "branch", "adapters", "codec")


def holds_checkpoint(source: Path) -> bool:
    """Whether `open_checkpoint` knows what this is, sound or not."""
    return (source / CONFIG_FILE).is_file() or (source / "transformer").is_dir() or is_official(source)


def open_checkpoint(source: Path, branch: Path | None = None, adapters: Path | None = None) -> Checkpoint:
    """Open a full-size model, wherever it comes from.

    Args:
        source: A diffusers folder, official files, or a folder that `save_checkpoint` wrote.
        branch: Published file of a memory branch, in place of the source's.
        adapters: Published file of low-rank adapters, in place of the source's.

    Returns:
        The checkpoint, checked; its tensors are read when they are used.

    Raises:
        FileFormatError: If a file is missing, damaged, tampered with, of another kind or version, or does not
            fit the others.
    """
    if (source / CONFIG_FILE).is_file():
        checkpoint = _open_ours(source)
    elif (source / "transformer").is_dir():
        checkpoint = open_diffusers(source)
    elif is_official(source):
        checkpoint = open_official(source)
    else:
        raise FileFormatError(
            f"source must be a file of weights, or a folder with {CONFIG_FILE}, transformer/ or "
            f"diffusion_pytorch_model.safetensors, got {source}"
        )
    if branch is not None:
        checkpoint = with_branch_file(checkpoint, branch)
    return checkpoint if adapters is None else with_adapter_file(checkpoint, adapters)


def save_checkpoint(checkpoint: Checkpoint, folder: Path, limit: int = SHARD_BYTES) -> None:
    """Write a folder of our own; it appears whole or not at all.

    Args:
        checkpoint: What to write, in its types.
        folder: New or empty.
        limit: Bytes of a file.

    Raises:
        InputError: If the folder is taken or cannot be written.
    """
    tensors = {
        f"{part}.{name}": tensor
        for part, members in checkpoint.parts.items()
        for name, tensor in members.items()
    }
    with whole_folder(folder) as temporary:
        written = write_shards(tensors, temporary, STEM, limit)
        text = {
            "kind": KIND,
            "schema_version": SCHEMA_VERSION,
            "parts": list(checkpoint.parts),
            "config": {"generator": config_values(checkpoint.config), "codec": dict(checkpoint.codec_config)},
            "sha256": {name: sha256(temporary / name) for name in written},
        }
        (temporary / CONFIG_FILE).write_text(json.dumps(text, indent=2) + "\n")


def _open_ours(folder: Path) -> Checkpoint:
    """Open a folder that `save_checkpoint` wrote."""
    path = folder / CONFIG_FILE
    text = read_json(path)
    told = (text.get("kind"), text.get("schema_version"))
    if told != (KIND, SCHEMA_VERSION):
        raise FileFormatError(
            f"{path} must be {KIND} version {SCHEMA_VERSION}, got {told[0]} version {told[1]}"
        )
    parts, hashes, config = text.get("parts"), text.get("sha256"), text.get("config")
    if (
        not (isinstance(parts, list) and "backbone" in parts and set(parts) <= set(PARTS))
        or not (isinstance(hashes, dict) and all(name == Path(name).name for name in hashes))
        or not (isinstance(config, dict) and {"generator", "codec"} == set(config))
        or not all(isinstance(values, dict) for values in config.values())
    ):
        raise FileFormatError(
            f"{path} must tell parts, config and sha256 of a checkpoint, got {sorted(text)}"
        )
    found, unknown = _read_parts(folder, hashes, parts)
    empty = [part for part in parts if not found[part]]
    if empty:
        raise FileFormatError(f"{folder} must hold tensors of {parts}, got none of {empty}")
    return _checked(path, found, unknown, config)


def _read_parts(
    folder: Path, hashes: Mapping[str, str], parts: list[str]
) -> tuple[dict[str, dict[str, Tensor]], list[str]]:
    """Read the files of a folder whose hashes are right: tensors by part and name, and those of no part."""
    digests = {name: sha256(folder / name) for name in hashes if (folder / name).is_file()}
    bad = [name for name, digest in hashes.items() if digests.get(name) != digest]
    if bad:
        raise FileFormatError(
            f"{folder} must hold files of known sha256, got missing or changed {listed(bad)}"
        )
    found: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    unknown = []
    for file in hashes:
        for name, tensor in read_tensors(folder / file).items():
            part, _, rest = name.partition(".")
            if part not in parts or rest in found[part]:
                unknown.append(name)
            else:
                found[part][rest] = tensor
    return found, unknown


def _checked(
    path: Path, found: dict[str, dict[str, Tensor]], unknown: list[str], config: dict[str, Any]
) -> Checkpoint:
    """Make a checkpoint of our own folder's tensors, all of them checked at once."""
    shape = make_config(path, config["generator"])
    empty, arguments = empty_generator(shape), codec_arguments(config["codec"])
    expected = {"backbone": empty.backbone.state_dict()}
    if found["branch"]:
        expected["branch"] = empty.branch.state_dict()
    if found["adapters"]:
        expected["adapters"] = adapter_shapes(expected["backbone"], found["adapters"])
    if found["codec"]:
        expected["codec"] = empty_codec(path, arguments).state_dict()
    check_tensors(path, _joined(found), _joined(expected), unknown)
    return Checkpoint(shape, **found, codec_config=arguments)


def _joined(parts: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for part, members in parts.items() for name, tensor in members.items()}
