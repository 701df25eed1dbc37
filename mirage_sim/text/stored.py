"""Stored: embeddings of prompts in files, for machines without the text encoder."""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError, check_shape

KIND = "mirage_sim.prompt"
SCHEMA_VERSION = "1"


def save_embeddings(path: Path, embeddings: Tensor, prompt: str = "") -> None:
    """Write the embedding of a prompt, whole or not at all.

    Args:
        path: The file, safetensors.
        embeddings: [L, D], without padding or with zeros behind the prompt's end, which are left out.
        prompt: The text, for whoever reads the file.

    Raises:
        InputError: If the shape is wrong.
        OSError: If it cannot be written.
    """
    check_shape("embeddings", embeddings, ["L", "D"])
    used = int(embeddings.abs().sum(dim=1).nonzero().max()) + 1 if bool(embeddings.any()) else 0
    about = {"kind": KIND, "schema_version": SCHEMA_VERSION, "prompt": prompt}
    temporary = path.with_name(path.name + ".tmp")
    try:
        save_file({"embeddings": embeddings[:used].float().cpu().contiguous()}, temporary, about)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_embeddings(path: Path) -> tuple[Tensor, str]:
    """Read what `save_embeddings` wrote.

    Args:
        path: The file.

    Returns:
        float32 [L, D], and the text.

    Raises:
        FileFormatError: If it is missing, damaged, or of another kind or version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about, names = file.metadata() or {}, list(file.keys())
            told = (about.get("kind"), about.get("schema_version"))
            if told != (KIND, SCHEMA_VERSION) or names != ["embeddings"]:
                raise FileFormatError(
                    f"{path} must be {KIND} version {SCHEMA_VERSION}, got {told[0]} version {told[1]}"
                )
            embeddings: Tensor = file.get_tensor("embeddings")
    except (SafetensorError, FileNotFoundError, IsADirectoryError) as error:
        raise FileFormatError(f"{path} must be a stored embedding, got {error!r}") from error
    return embeddings, about.get("prompt", "")


def fit_context(embeddings: Tensor, tokens: int, width: int) -> Tensor:
    """Bring an embedding to the length that the generator attends to.

    Args:
        embeddings: [L', D].
        tokens: Length L.
        width: D.

    Returns:
        [L, D], zeros behind its end.

    Raises:
        InputError: If it is longer, or of another width.
    """
    check_shape("embeddings", embeddings, ["L", width])
    if len(embeddings) > tokens:
        raise InputError(f"embeddings must have at most {tokens} tokens, got {len(embeddings)}")
    return torch.nn.functional.pad(embeddings, (0, 0, 0, tokens - len(embeddings)))
