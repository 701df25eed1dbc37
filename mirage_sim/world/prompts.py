"""Prompts: what a world that attends to text is told of itself."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.model.world_model import WorldModel
from mirage_sim.text.stored import fit_context, load_embeddings

Prompt = str | Path | Tensor | np.ndarray
Prompts = Prompt | Sequence[Prompt] | None


def embed_prompts(model: WorldModel, prompts: Prompts, worlds: int) -> Tensor:
    """Embed the prompts of all worlds.

    Args:
        model: Its settings tell how many tokens of which width; its text encoder embeds texts.
        prompts: For all worlds, or one for each: a text, an embedding [L, D], or the file of a stored one;
            `None` is the empty text, and zeros for a model without a text encoder.
        worlds: Number of worlds B.

    Returns:
        float32 [B, L, D] on the model's device, zeros behind a prompt's end; [B, 0, D] for a model that
        attends to no text.

    Raises:
        InputError: If the model attends to no text, cannot embed texts, or shapes or numbers do not fit.
        InputTypeError: If a prompt is neither text, file, tensor nor array.
        FileFormatError: If a file holds no embedding.
    """
    tokens, width = model.config.prompt_tokens, model.config.generator.context_dim
    if tokens == 0:
        if prompts is not None:
            raise InputError("prompts must be None for a model that attends to no text")
        return torch.zeros(worlds, 0, width, device=model.device, dtype=torch.float32)
    if prompts is None:
        prompts = (
            "" if model.text_encoder is not None else torch.zeros(0, width, dtype=torch.float32, device="cpu")
        )
    every = [prompts] * worlds if isinstance(prompts, Prompt) else list(prompts)
    if len(every) != worlds:
        raise InputError(f"prompts must be one, or one for each of {worlds} worlds, got {len(every)}")
    return torch.stack([_embed(model, prompt, tokens, width) for prompt in every]).to(model.device)


def _embed(model: WorldModel, prompt: Prompt, tokens: int, width: int) -> Tensor:
    if isinstance(prompt, Path):
        prompt = load_embeddings(prompt)[0]
    if isinstance(prompt, Tensor | np.ndarray):
        return fit_context(own_floats("prompts", prompt, torch.float32), tokens, width)
    if not isinstance(prompt, str):
        raise InputTypeError(f"prompts must be texts or embeddings [L, {width}], got {type(prompt).__name__}")
    if model.text_encoder is None:
        raise InputError(
            "prompts must be embeddings for a model whose folder has no text_encoder and tokenizer, "
            f"got {prompt!r}"
        )
    return fit_context(model.text_encoder.encode([prompt])[0].float(), tokens, width)
