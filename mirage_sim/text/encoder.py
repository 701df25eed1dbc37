"""Encoder: prompts through UMT5 from a local folder. It is read when a prompt comes, and can be let go of.

Source: Wan's use of UMT5: 512 tokens, zeros behind the prompt's end.
"""

from __future__ import annotations

import html
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError, InputTypeError
from mirage_sim.pretrained import load_pretrained, read_json
from mirage_sim.text.stored import fit_context

_CLASS = "UMT5EncoderModel"
_KEPT = 64


class TextEncoder:
    """Embeds prompts; embeddings of the last ones are kept."""

    def __init__(
        self,
        folder: Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.bfloat16,
        tokens: int = 512,
    ) -> None:
        """Look at a folder; nothing large is read.

        Args:
            folder: Holds `text_encoder/` (an `UMT5EncoderModel`) and `tokenizer/`.
            device: Where the encoder runs.
            dtype: Of its weights.
            tokens: Length L of an embedding.

        Raises:
            FileFormatError: If a part is missing or of another kind.
        """
        self._folder, self._device, self._dtype, self.tokens = folder, torch.device(device), dtype, tokens
        config = read_json(folder / "text_encoder" / "config.json")
        classes = config.get("architectures")
        if classes != [_CLASS]:
            raise FileFormatError(f"{folder / 'text_encoder'} must hold a {_CLASS}, got {classes!r}")
        if config.get("model_type") != "umt5" or not isinstance(config.get("d_model"), int):
            told = {name: config.get(name) for name in ("model_type", "d_model")}
            raise FileFormatError(
                f"{folder / 'text_encoder'} must hold a umt5 model with a d_model, got {told}"
            )
        if not (folder / "tokenizer").is_dir():
            raise FileFormatError(f"{folder} must hold tokenizer/ beside text_encoder/")
        self.width: int = config["d_model"]
        self._parts: tuple[Any, Any] | None = None
        self._known: OrderedDict[str, Tensor] = OrderedDict()

    @property
    def loaded(self) -> bool:
        """Whether the encoder's weights are in memory."""
        return self._parts is not None

    def unload(self) -> None:
        """Let go of tokenizer and weights; the next new prompt reads them again."""
        self._parts = None

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Tensor:
        """Embed prompts.

        Args:
            prompts: Texts; spaces in a row count as one, and what exceeds the tokens is cut off.

        Returns:
            float32 [B, L, D] on the CPU, zeros behind a prompt's end.

        Raises:
            InputTypeError: If a prompt is no text.
            InputError: If there is none.
            FileFormatError: If weights or tokenizer are damaged.
        """
        several = isinstance(prompts, Sequence) and not isinstance(prompts, str)
        if not several or not all(isinstance(prompt, str) for prompt in prompts):
            raise InputTypeError(f"prompts must be a sequence of texts, got {prompts!r}")
        if not prompts:
            raise InputError("prompts must hold at least one text, got none")
        cleaned = [" ".join(html.unescape(html.unescape(prompt)).split()) for prompt in prompts]
        return torch.stack([fit_context(self._embed(text), self.tokens, self.width) for text in cleaned])

    def _embed(self, prompt: str) -> Tensor:
        """Embed one prompt alone, so that it does not depend on others: [its own tokens, D]."""
        if prompt not in self._known:
            tokenizer, encoder = self._load()
            told = tokenizer([prompt], truncation=True, max_length=self.tokens, return_tensors="pt")
            inputs = (told.input_ids.to(self._device), told.attention_mask.to(self._device))
            self._known[prompt] = encoder(*inputs).last_hidden_state[0].float().cpu()
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(prompt)
        return self._known[prompt]

    def _load(self) -> tuple[Any, Any]:
        if self._parts is None:
            from transformers import AutoTokenizer, UMT5EncoderModel

            try:
                tokenizer = AutoTokenizer.from_pretrained(self._folder / "tokenizer", local_files_only=True)
            except Exception as error:
                raise FileFormatError(
                    f"{self._folder / 'tokenizer'} must hold a tokenizer, got {error}"
                ) from error
            encoder = load_pretrained(UMT5EncoderModel, self._folder / "text_encoder", self._dtype)
            self._parts = tokenizer, encoder.to(self._device)
        return self._parts
