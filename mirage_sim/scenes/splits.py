"""Which flats are for training, validation and testing: fixed, disjoint ranges of seeds."""

from __future__ import annotations

from typing import Literal

from mirage_sim.errors import InputError

TRAIN_SEEDS = range(0, 100_000)
VALIDATION_SEEDS = range(100_000, 110_000)
TEST_SEEDS = range(110_000, 120_000)
Split = Literal["train", "validation", "test"]
SPLITS = {"train": TRAIN_SEEDS, "validation": VALIDATION_SEEDS, "test": TEST_SEEDS}


def first_seeds(split: str, count: int, argument: str = "worlds") -> range:
    """Give the first seeds of a split.

    Args:
        split: "train", "validation" or "test".
        count: How many.
        argument: Name of the count in the error.

    Returns:
        Scene seeds.

    Raises:
        InputError: If there is no such split or it has not as many.

    Source: ours.
    """
    if split not in SPLITS:
        raise InputError(f"split must be one of {sorted(SPLITS)}, got {split!r}")
    if not 0 < count <= len(SPLITS[split]):
        raise InputError(f"{argument} must be in 1..{len(SPLITS[split])}, got {count}")
    return SPLITS[split][:count]


def split_of(seed: int) -> Split:
    """Tell which split a scene seed belongs to.

    Args:
        seed: Scene seed.

    Returns:
        `"train"`, `"validation"` or `"test"`.

    Raises:
        InputError: If the seed is in none of them.

    Source: ours.
    """
    if seed in TRAIN_SEEDS:
        return "train"
    if seed in VALIDATION_SEEDS:
        return "validation"
    if seed in TEST_SEEDS:
        return "test"
    raise InputError(f"seed must be in [0, {TEST_SEEDS.stop}), got {seed}")
