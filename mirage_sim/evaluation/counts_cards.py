"""Cards of the counts: what their arithmetic and their memory allow, by published figures and our counts.

All of it is computed. A floor is what a step would take if the card multiplied at its published peak all the
time, which none does; what fits is told from bytes that were counted, not from a run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ROOM = 0.9
"""Share of a card's memory that is planned with; the rest goes to the driver, kernels and fragments."""


@dataclass(frozen=True)
class Card:
    """A graphics card.

    Attributes:
        name: What it is sold as.
        tflops: Published peak of dense bf16 products with sums in 32 bit, 1e12 operations a second.
        gib: Published memory, taken as GiB.
    """

    name: str
    tflops: float
    gib: float


CARDS = (
    Card("H100 SXM", 989.0, 80.0),
    Card("H200", 989.0, 141.0),
    Card("A100 80 GB", 312.0, 80.0),
    Card("L40S", 362.0, 48.0),
    Card("RTX 5090", 209.0, 32.0),
    Card("RTX 4090", 165.0, 24.0),
)
"""Source: the vendor's data sheets, without sparsity."""


@dataclass(frozen=True)
class Setting:
    """A way to run the model.

    Attributes:
        name: What it is called.
        together: Networks that are on the card at once, one group after the other.
        tiled: Whether pictures are decoded tile by tile.
        matrix: Whether attention keeps its matrix, as without a fused kernel.
    """

    name: str
    together: tuple[tuple[str, ...], ...]
    tiled: bool
    matrix: bool = False


_ALL = (("text", "generator", "codec"),)
_TEXT_FIRST = (("text",), ("generator", "codec"))
_GENERATOR_LEAVES = (("text",), ("generator", "resting codec"), ("codec",))
_BLOCK_BY_BLOCK = (("text",), ("blocks", "codec"))
SETTINGS = (
    Setting("all three networks on the card, attention with its matrix", _ALL, False, True),
    Setting("all three networks on the card", _ALL, False),
    Setting("the same, decoding in tiles", _ALL, True),
    Setting("text encoder gone after the prompt", _TEXT_FIRST, False),
    Setting("the same, decoding in tiles", _TEXT_FIRST, True),
    Setting("generator on the card while it is used", _GENERATOR_LEAVES, False),
    Setting("two blocks of the generator on the card at a time", _BLOCK_BY_BLOCK, False),
    Setting("the same, decoding in tiles", _BLOCK_BY_BLOCK, True),
)


def floors(flop: float, frames: int, published: float) -> list[dict[str, Any]]:
    """Tell how fast each card could be at best.

    Args:
        flop: Operations of a step.
        frames: New pictures that it makes.
        published: Seconds a picture that were published for the method.

    Returns:
        For each card `name`, `tflops`, `seconds` a picture at its peak, and the `share` of its peak at which
        it would take as long as was published; above 1 it cannot.
    """
    rows = []
    for card in CARDS:
        seconds = flop / (card.tflops * 1e12) / frames
        rows.append(
            {"name": card.name, "tflops": card.tflops, "seconds": seconds, "share": seconds / published}
        )
    return rows


def needed_bytes(
    setting: Setting, weights: Mapping[str, int], peaks: Mapping[str, int], world_bytes: int
) -> int:
    """Memory that a setting takes at its worst moment.

    Args:
        setting: What is on the card when.
        weights: Bytes of `generator`, of it with only two `blocks`, of `codec`, used or `resting codec`, and,
            where it is known, `text`.
        peaks: Bytes alive beside the weights in `generate`, `generate_matrix`, `decode`, `decode_tiled`,
            `encode` and `prompt`.
        world_bytes: What stays between the calls: the memory of a world and its latents.

    Returns:
        Bytes: weights that are on the card together, and the most that one of their calls keeps alive.
    """
    calls = {
        "text": peaks.get("prompt", 0),
        "generator": peaks["generate_matrix" if setting.matrix else "generate"],
        "blocks": peaks["generate"],
        "resting codec": 0,
        "codec": max(peaks["decode_tiled" if setting.tiled else "decode"], peaks["encode"]),
    }
    most = 0
    for group in setting.together:
        there = [name for name in group if name in weights]
        if there:
            most = max(most, sum(weights[name] for name in there) + max(calls[name] for name in there))
    return most + world_bytes


def fits(
    weights: Mapping[str, int],
    peaks: Mapping[str, int],
    world_bytes: int,
    settings: Sequence[Setting] = SETTINGS,
) -> list[dict[str, Any]]:
    """Tell which settings fit which card.

    Args:
        weights: See `needed_bytes`.
        peaks: See `needed_bytes`.
        world_bytes: See `needed_bytes`.
        settings: Ways to run.

    Returns:
        For each setting its `name`, `bytes`, and `cards`, whether they fit into `ROOM` of each card's memory.
    """
    rows = []
    for setting in settings:
        size = needed_bytes(setting, weights, peaks, world_bytes)
        cards = {card.name: size <= ROOM * card.gib * 2**30 for card in CARDS}
        rows.append({"name": setting.name, "bytes": size, "cards": cards})
    return rows
