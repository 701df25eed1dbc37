"""LoRA on the backbone, through peft: the second training stage adapts the backbone to the branch.

Source: paper, section on training; Hu et al. 2021.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from mirage_sim.libraries import from_library
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.generator import Generator

TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
ADAPTER = "memory"


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
    kind = from_library("peft.tuners.tuners_utils", "BaseTunerLayer")
    adapted = [(name, part) for name, part in generator.backbone.named_modules() if isinstance(part, kind)]
    for name, part in adapted:
        part.merge(adapter_names=[ADAPTER])
        generator.backbone.set_submodule(name, part.get_base_layer())


def _add(generator: Generator, modules: Sequence[str], **settings: Any) -> None:
    generator.backbone.requires_grad_(False)
    config = from_library("peft", "LoraConfig")(
        target_modules=list(modules), init_lora_weights=True, **settings
    )
    from_library("peft", "inject_adapter_in_model")(config, generator.backbone, ADAPTER)


def has_lora(generator: Generator) -> bool:
    """Whether the backbone carries adapters."""
    return any(".lora_A." in name for name, _ in generator.backbone.named_parameters())
