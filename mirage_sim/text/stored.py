"""Stored: embeddings of prompts in files, for machines without the text encoder."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import FileFormatError, InputError, check_shape
from mirage_sim.files import whole_file

KIND = "mirage_sim.prompt"
SCHEMA_VERSION = "1"


def save_embeddings(path: Path, embeddings: Tensor, prompt: str | None = None) -> None:
    """Write the embedding of a prompt, whole or not at all.

    Args:
        path: The file, safetensors.
        embeddings: [L, D], without padding or with zeros behind the prompt's end, which are left out.
        prompt: The text, for whoever reads the file; `None` if it is not known.

    Raises:
        InputError: If the shape is wrong.
        FileWriteError: If the file cannot be written.
    """
    embeddings = own_floats("embeddings", embeddings, torch.float32, "cpu")
    check_shape("embeddings", embeddings, ["L", "D"])
    used = int(embeddings.abs().sum(dim=1).nonzero().max()) + 1 if bool(embeddings.any()) else 0
    about = {"kind": KIND, "schema_version": SCHEMA_VERSION}
    if prompt is not None:
        about["prompt"] = prompt
    content = save({"embeddings": embeddings[:used].contiguous()}, about)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def load_embeddings(path: Path) -> tuple[Tensor, str | None]:
    """Read what `save_embeddings` wrote.

    Args:
        path: The file.

    Returns:
        float32 [L, D], and the text if it is known.

    Raises:
        FileFormatError: If it is missing, damaged, or of another kind, version, shape or type.
    """
    try:
        with safe_open(path, framework="pt") as file:
            about = file.metadata() or {}
            kind, version = about.get("kind"), about.get("schema_version")
            ours = (kind, version) == (KIND, SCHEMA_VERSION)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys() if ours}
    except (SafetensorError, OSError) as error:
        raise FileFormatError(f"{path} must be a stored embedding, got {error!r}") from error
    if not ours:
        raise FileFormatError(f"{path} must be {KIND} version {SCHEMA_VERSION}, got {kind} version {version}")
    shapes = {name: (tensor.dtype, list(tensor.shape)) for name, tensor in tensors.items()}
    embeddings = tensors.get("embeddings")
    if len(tensors) != 1 or embeddings is None or embeddings.ndim != 2 or embeddings.dtype != torch.float32:
        raise FileFormatError(f"{path} must hold embeddings in float32 [L, D], got {shapes}")
    return embeddings, about.get("prompt")


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
