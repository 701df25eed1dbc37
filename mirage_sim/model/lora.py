"""LoRA on the backbone, through peft: the second training stage adapts the backbone to the branch.

Source: paper, section on training; Hu et al. 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig
from peft.tuners.tuners_utils import BaseTunerLayer

from mirage_sim.errors import InputError
from mirage_sim.model.generator import Generator

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
ADAPTER = "memory"


@dataclass(frozen=True)
class LoRAConfig:
    """Size of the adapters.

    Attributes:
        rank: Rank of every adapter.
        alpha: Scale of an adapter is alpha / rank.
        dropout: Share of an adapter's inputs dropped in training.
    """

    rank: int = 32
    alpha: int = 32
    dropout: float = 0.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.rank, self.alpha) < 1 or not 0.0 <= self.dropout < 1.0:
            raise InputError(
                "rank and alpha must be at least 1 and dropout in [0, 1), "
                f"got {self.rank}, {self.alpha} and {self.dropout}"
            )


def add_lora(
    generator: Generator, config: LoRAConfig | None = None, modules: Sequence[str] = TARGETS
) -> None:
    """Add adapters to the backbone's attention and feed-forward layers; only they require gradients there.

    Args:
        generator: Changed in place.
        config: Size of the adapters.
        modules: Layers to adapt, by their names in the backbone or the ends of these.
    """
    config = config if config is not None else LoRAConfig()
    _add(generator, modules, r=config.rank, lora_alpha=config.alpha, lora_dropout=config.dropout)


def add_unscaled_lora(generator: Generator, ranks: Mapping[str, int]) -> None:
    """Add adapters whose products count as they are, each at a rank of its own; see `add_lora`.

    Args:
        generator: Changed in place.
        ranks: By the names of layers in the backbone.
    """
    usual = max(ranks.values())
    others = {re.escape(module): rank for module, rank in ranks.items() if rank != usual}
    _add(generator, list(ranks), r=usual, lora_alpha=usual, rank_pattern=others, alpha_pattern=others)


def merge_lora(generator: Generator) -> None:
    """Add the adapters' products to the backbone's weights and remove the adapters.

    Args:
        generator: Changed in place; its output stays the same up to rounding.
    """
    generator.backbone.fuse_lora(adapter_names=[ADAPTER])
    generator.backbone.unload_lora()


def _add(generator: Generator, modules: Sequence[str], **settings: Any) -> None:
    generator.backbone.requires_grad_(False)
    config = LoraConfig(target_modules=list(modules), init_lora_weights=True, **settings)
    generator.backbone.add_adapter(config, adapter_name=ADAPTER)


def has_lora(generator: Generator) -> bool:
    """Whether the backbone carries adapters."""
    return any(isinstance(module, BaseTunerLayer) for module in generator.backbone.modules())
