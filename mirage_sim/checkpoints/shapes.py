"""Shapes: the configuration of generator and codec that a `config.json` or the tensors themselves tell.

Source: configurations of the published Wan2.2 checkpoints and of diffusers' classes.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.libraries import from_library
from mirage_sim.model.config import GeneratorConfig, condition_channels
from mirage_sim.pretrained import read_json

HEAD_DIM = 128
"""Channels of an attention head in every published Wan model; tensors do not tell it."""
FIXED = {
    "freq_dim": 256,
    "cross_attn_norm": True,
    "qk_norm": "rms_norm_across_heads",
    "eps": 1e-6,
    "image_dim": None,
    "added_kv_proj_dim": None,
    "pos_embed_seq_len": None,
}
"""What the generator takes for granted in diffusers' configuration of a backbone."""
SIZES = {
    "channels": "in_channels",
    "heads": "num_attention_heads",
    "head_dim": "attention_head_dim",
    "layers": "num_layers",
    "ffn_dim": "ffn_dim",
    "context_dim": "text_dim",
}
"""Our sizes and diffusers' names for them."""


def make_config(where: Path, values: Mapping[str, Any]) -> GeneratorConfig:
    """Make a configuration of what a file tells.

    Args:
        where: The file.
        values: Fields of `GeneratorConfig`.

    Returns:
        The configuration.

    Raises:
        FileFormatError: If fields are unknown or do not fit.
    """
    try:
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        sizes = {key: value for key, value in plain.items() if key != "patch_size"}
        patch = plain.get("patch_size", (1, 2, 2))
        if not all(type(value) is int for value in (*sizes.values(), *patch)) or len(patch) != 3:
            raise InputError(f"generator sizes must be whole numbers, got {plain}")
        return GeneratorConfig(**plain)
    except (InputError, TypeError) as error:
        raise FileFormatError(f"{where} must describe a generator, got {error}") from error


def config_of_diffusers(path: Path) -> GeneratorConfig:
    """Read diffusers' `transformer/config.json`.

    Args:
        path: The file.

    Returns:
        The configuration, with the condition of a branch that is still to be trained.

    Raises:
        FileFormatError: If it is not of a backbone that the generator can carry.
    """
    values = read_json(path)
    check_class(path, values, "WanTransformer3DModel")
    missing = sorted({*SIZES.values(), "patch_size"} - set(values))
    wrong = {key: values[key] for key, want in FIXED.items() if key in values and values[key] != want}
    channels = values.get("in_channels")
    if values.get("out_channels") not in (None, channels):
        wrong["out_channels"] = values["out_channels"]
    if missing or wrong:
        wanted = FIXED | {"out_channels": channels}
        raise FileFormatError(
            f"{path} must tell {sorted(SIZES.values())} and patch_size, and have "
            f"{ {key: wanted[key] for key in wrong} }, lacks {missing} and has {wrong}"
        )
    sizes = {ours: values[theirs] for ours, theirs in SIZES.items()}
    return _untrained(make_config(path, sizes | {"patch_size": values["patch_size"]}))


def config_of_tensors(where: Path, tensors: Mapping[str, Tensor], heads: int | None) -> GeneratorConfig:
    """Read the sizes off a backbone's tensors.

    Args:
        where: File that they come from.
        tensors: By our names.
        heads: Attention heads, or `None` for as many as 128 channels each make.

    Returns:
        The configuration, with the condition of a branch that is still to be trained.

    Raises:
        FileFormatError: If the tensors that tell the sizes are missing, or the width does not fit the heads.
    """
    needed = {
        "patch_embedding.weight": 5,
        "condition_embedder.text_embedder.linear_1.weight": 2,
        "blocks.0.ffn.net.0.proj.weight": 2,
    }
    bad = [name for name, ndim in needed.items() if name not in tensors or tensors[name].ndim != ndim]
    if bad:
        raise FileFormatError(
            f"{where} must hold a backbone, got no {bad} (our names) of the right dimensions"
        )
    patch, text, feed = (tensors[name].shape for name in needed)
    width = patch[0]
    count = heads if heads is not None else width // HEAD_DIM
    if count < 1 or width % count or (heads is None and width % HEAD_DIM):
        raise FileFormatError(
            f"{where} must have a width that its heads share, got {width} channels for "
            + (
                f"{heads} heads"
                if heads is not None
                else f"heads of {HEAD_DIM}; config.json may tell num_heads"
            )
        )
    sizes = {
        "channels": patch[1],
        "heads": count,
        "head_dim": width // count,
        "layers": count_blocks(tensors),
        "ffn_dim": feed[0],
        "context_dim": text[1],
        "patch_size": tuple(patch[2:]),
    }
    return _untrained(make_config(where, sizes))


def with_branch(where: Path, config: GeneratorConfig, tensors: Mapping[str, Tensor]) -> GeneratorConfig:
    """Add the sizes of a memory branch.

    Args:
        where: File that it comes from.
        config: Of the backbone.
        tensors: The branch's, by our names.

    Returns:
        The configuration of both.

    Raises:
        FileFormatError: If no spacing beside the backbone's blocks gives that many.
    """
    condition = tensors.get("patch_embedding.weight")
    channels = condition.shape[1] if condition is not None and condition.ndim == 5 else config.channels
    count = count_blocks(tensors)
    every = -(-config.layers // count) if count else 0
    if count < 1 or -(-config.layers // every) != count:
        raise FileFormatError(
            f"{where} must have a block for every so many of the backbone's {config.layers}, got {count}"
        )
    return replace(config, condition_channels=channels, branch_every=every)


def count_blocks(names: Iterable[str]) -> int:
    """One more than the highest number of a block in our names."""
    numbers = [int(found[1]) for name in names if (found := re.match(r"blocks\.(\d+)\.", name))]
    return 1 + max(numbers, default=-1)


def check_class(path: Path, values: Mapping[str, Any], name: str) -> None:
    """Raise unless a `config.json` names this class.

    Args:
        path: The file.
        values: What it holds.
        name: Of the class.

    Raises:
        FileFormatError: If it names another one or none.
    """
    if values.get("_class_name") != name:
        raise FileFormatError(f"{path} must be of class {name}, got {values.get('_class_name')!r}")


def wan_autoencoder() -> Any:
    """The class of Wan's autoencoders.

    Raises:
        LibraryError: If diffusers cannot be imported.
    """
    return from_library("diffusers", "AutoencoderKLWan")


def codec_arguments(values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the values that `AutoencoderKLWan` takes; other versions of it write others beside them."""
    known = inspect.signature(wan_autoencoder().__init__).parameters
    return {key: value for key, value in values.items() if key in known}


def empty_codec(where: Path | str, arguments: Mapping[str, Any]) -> Any:
    """An `AutoencoderKLWan` without weights, which costs no memory.

    Args:
        where: What tells the arguments, for a message.
        arguments: Of the class.

    Returns:
        The autoencoder.

    Raises:
        FileFormatError: If the arguments do not fit, or the statistics are not as many as latent channels.
    """
    kind = wan_autoencoder()
    try:
        with torch.device("meta"):
            codec = kind(**arguments)
        statistics = [len(codec.config[key]) for key in ("latents_mean", "latents_std")]
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise FileFormatError(f"{where} must describe an AutoencoderKLWan, got {error}") from error
    if statistics != [codec.config.z_dim] * 2:
        raise FileFormatError(
            f"{where} must have latents_mean and latents_std of {codec.config.z_dim} channels, "
            f"got {statistics}"
        )
    return codec


def config_values(config: GeneratorConfig) -> dict[str, Any]:
    """The configuration as JSON holds it."""
    values = asdict(config)
    return values | {"patch_size": list(config.patch_size)}


def _untrained(config: GeneratorConfig) -> GeneratorConfig:
    return replace(config, condition_channels=condition_channels(config.channels))
