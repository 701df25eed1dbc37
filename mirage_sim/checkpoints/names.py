"""Names: what the tensors of backbone, memory branch and adapters are called in published files, and by us.

Our names are those of our modules: diffusers' for the backbone, `MemoryBranch`'s for the branch, and
`<module of the backbone>.lora_A.weight` for adapters. Published files have the official names or diffusers',
behind prefixes of whatever wrapped the network; backbone and adapters share the tables of both.

Source: parameter names of the published Wan2.2 and VACE checkpoints, of diffusers' classes, and of the
adapters that peft, diffusers, DiffSynth-Studio, ComfyUI and kohya's trainers write.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from mirage_sim.errors import InputError, listed

LEAVES = ("weight", "bias", "gamma")
WRAPPERS = ("module.", "model.", "base_model.")
"""Prefixes that say nothing about the part: of DistributedDataParallel, trainers and peft."""
BACKBONE_PREFIXES = (*WRAPPERS, "diffusion_model.", "transformer.", "pipe.dit.", "dit.", "lora_unet_")
"""Prefixes of the backbone and of its adapters, also several of them in a row."""
BRANCH_PREFIXES = (*WRAPPERS, "pipe.vace.", "vace.")
"""Prefixes of the memory branch."""
_PROJECTIONS = {"q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0"}
_NORMS = {"norm_q": "norm_q", "norm_k": "norm_k"}
_FEED_FORWARD = {"ffn.0": "ffn.net.0.proj", "ffn.2": "ffn.net.2"}
_ATTENTIONS = {"self_attn": "attn1", "cross_attn": "attn2"}

ALPHA = "alpha"
"""What stands in place of `lora_A.weight` for the number that scales an adapter by alpha / rank."""
LINEAR = _FEED_FORWARD | {
    f"{attention}.{layer}": f"{_ATTENTIONS[attention]}.{_PROJECTIONS[layer]}"
    for attention in _ATTENTIONS
    for layer in _PROJECTIONS
}
"""Layers of a block that adapters may adapt, published and ours."""
BLOCK = (
    LINEAR
    | {
        f"{attention}.{layer}": f"{_ATTENTIONS[attention]}.{_NORMS[layer]}"
        for attention in _ATTENTIONS
        for layer in _NORMS
    }
    # The published norm1 and norm2 have no weights; norm3, before the cross attention, is diffusers' norm2.
    | {"norm3": "norm2", "modulation": "scale_shift_table"}
)
"""Modules and lone parameters of a transformer block."""
TOP = {
    "patch_embedding": "patch_embedding",
    "text_embedding.0": "condition_embedder.text_embedder.linear_1",
    "text_embedding.2": "condition_embedder.text_embedder.linear_2",
    "time_embedding.0": "condition_embedder.time_embedder.linear_1",
    "time_embedding.2": "condition_embedder.time_embedder.linear_2",
    "time_projection.1": "condition_embedder.time_proj",
    "head.head": "proj_out",
    "head.modulation": "scale_shift_table",
}
"""Modules and lone parameters of the backbone outside its blocks."""


@dataclass(frozen=True)
class Names:
    """A two-way mapping between published names and ours.

    Attributes:
        prefixes: What may stand before a published name, also several of them in a row.
        to_ours: Our name of a published one without prefix; `None` if it is unknown.
        to_published: Published name of one of ours; `None` if it is unknown.
    """

    prefixes: tuple[str, ...]
    to_ours: Callable[[str], str | None]
    to_published: Callable[[str], str | None]

    def say(self, name: str) -> str:
        """The published name for a message, or our own where there is none."""
        return self.to_published(name) or name


def swap(name: str, table: Mapping[str, str]) -> str | None:
    """Rename the module before the last dot, or the whole name of a lone parameter.

    Args:
        name: Name of a tensor.
        table: Modules and lone parameters.

    Returns:
        The other name, or `None` if the table does not have it.
    """
    if name in table:
        return table[name]
    module, _, leaf = name.rpartition(".")
    return f"{table[module]}.{leaf}" if leaf in LEAVES and module in table else None


def inverse(table: Mapping[str, str]) -> dict[str, str]:
    """Turn a one-to-one table around."""
    return {value: key for key, value in table.items()}


def translate(tensors: Mapping[str, Tensor], names: Names) -> tuple[dict[str, Tensor], list[str]]:
    """Give the tensors of a published file our names.

    Args:
        tensors: By the names in the file.
        names: Of the part that the file holds.

    Returns:
        The tensors by our names, and the names in the file that are unknown or stand for a tensor twice.
    """
    found: dict[str, Tensor] = {}
    unknown = []
    for name, tensor in tensors.items():
        ours = names.to_ours(_strip(name, names.prefixes))
        if ours is None or ours in found:
            unknown.append(name)
        else:
            found[ours] = tensor
    return found, unknown


def publish(tensors: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Give tensors their published names, without prefix but for that of adapters.

    Args:
        tensors: By our names.
        names: Of the part that they belong to.

    Returns:
        The tensors by their published names.

    Raises:
        InputError: If some have no published name.
    """
    renamed = {name: names.to_published(name) for name in tensors}
    unknown = [name for name, other in renamed.items() if other is None]
    if unknown:
        raise InputError(f"tensors must have published names, got none for {listed(unknown)}")
    return {other: tensors[name] for name, other in renamed.items() if other is not None}


def _strip(name: str, prefixes: tuple[str, ...]) -> str:
    """Take off prefixes until none is left."""
    while any(name.startswith(prefix) for prefix in prefixes):
        name = name[max(len(prefix) for prefix in prefixes if name.startswith(prefix)) :]
    return name


def _rename_backbone(name: str, top: Mapping[str, str], block: Mapping[str, str]) -> str | None:
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)", name)
    if found is None:
        return swap(name, top)
    rest = swap(found[2], block)
    return None if rest is None else f"blocks.{found[1]}.{rest}"


def _branch_to_ours(name: str) -> str | None:
    if name.startswith("vace_patch_embedding."):
        return name.removeprefix("vace_")
    found = re.fullmatch(r"vace_blocks\.(\d+)\.(.+)", name)
    if found is None:
        return None
    index, rest = found[1], found[2]
    if rest.startswith("before_proj."):
        return rest if index == "0" else None  # only the first block sees the backbone's tokens
    if rest.startswith("after_proj."):
        return f"after_proj.{index}.{rest.removeprefix('after_proj.')}"
    renamed = swap(rest, BLOCK)
    return None if renamed is None else f"blocks.{index}.{renamed}"


def _branch_to_published(name: str) -> str | None:
    if name.startswith("patch_embedding."):
        return f"vace_{name}"
    if name.startswith("before_proj."):
        return f"vace_blocks.0.{name}"
    found = re.fullmatch(r"(after_proj|blocks)\.(\d+)\.(.+)", name)
    if found is None:
        return None
    renamed = swap(found[3], inverse(BLOCK)) if found[1] == "blocks" else f"after_proj.{found[3]}"
    return None if renamed is None else f"vace_blocks.{found[2]}.{renamed}"


def _both_styles(table: Mapping[str, str]) -> dict[str, str]:
    """Our names by published ones and by themselves; no name means something else in the other style."""
    return {ours: ours for ours in table.values()} | dict(table)


TOP_STYLES, BLOCK_STYLES, LINEAR_STYLES = (_both_styles(table) for table in (TOP, BLOCK, LINEAR))
"""The tables above for official names and diffusers' alike."""
_HALVES = {"A": ("lora_A", "lora_down", "lora.down"), "B": ("lora_B", "lora_up", "lora.up")}
"""First and second half of an adapter, as peft, kohya's trainers and older versions of diffusers say."""
_HALF_OF = {style: half for half, styles in _HALVES.items() for style in styles}
_ADAPTER = re.compile(
    rf"(?P<module>.+)\.(?:(?P<half>{'|'.join(map(re.escape, _HALF_OF))})(?:\.default)?\.weight|alpha)"
)
_UNDERSCORED = {name.replace(".", "_"): name for name in LINEAR_STYLES}
"""Layers of a block as kohya's trainers name them."""


def _adapter_to_ours(name: str) -> str | None:
    found = _ADAPTER.fullmatch(name)
    module = found and re.fullmatch(r"blocks[._](\d+)[._](.+)", found["module"])
    if not found or not module:
        return None
    layer = LINEAR_STYLES.get(_UNDERSCORED.get(module[2], module[2]))
    if layer is None:
        return None
    kind = f"lora_{_HALF_OF[found['half']]}.weight" if found["half"] else ALPHA
    return f"blocks.{module[1]}.{layer}.{kind}"


def _adapter_to_published(name: str) -> str | None:
    found = re.fullmatch(r"blocks\.(\d+)\.(.+)\.lora_([AB])\.weight", name)
    layers = inverse(LINEAR)
    if found is None or found[2] not in layers:
        return None
    return f"pipe.dit.blocks.{found[1]}.{layers[found[2]]}.lora_{found[3]}.weight"


BACKBONE = Names(
    BACKBONE_PREFIXES,
    lambda name: _rename_backbone(name, TOP_STYLES, BLOCK_STYLES),
    lambda name: _rename_backbone(name, inverse(TOP), inverse(BLOCK)),
)
BRANCH = Names(BRANCH_PREFIXES, _branch_to_ours, _branch_to_published)
ADAPTERS = Names(BACKBONE_PREFIXES, _adapter_to_ours, _adapter_to_published)
