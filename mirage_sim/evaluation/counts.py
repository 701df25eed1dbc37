"""Counts: exact numbers of the full-size model, without weights and without a GPU.

Parameters, operations and bytes of every network are counted on models without values and told a second time
by formulas; from both follow the floor that a card's arithmetic sets, and what fits into its memory.
"""

from __future__ import annotations

from typing import Any

import torch

from mirage_sim.evaluation.bench_config import CountsConfig
from mirage_sim.evaluation.counts_cards import fits, floors
from mirage_sim.evaluation.counts_formulas import PassShape, TextShape
from mirage_sim.evaluation.counts_networks import (
    count_codec,
    count_networks,
    count_passes,
    count_text,
    empty_text_encoder,
)
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.evaluation.published import SECONDS_PER_FRAME
from mirage_sim.evaluation.report import Aim
from mirage_sim.memory import Keyframes
from mirage_sim.memory.config import DTYPES
from mirage_sim.memory.entries import Entries
from mirage_sim.model.full_size import full_size_memory, loaded_shape
from mirage_sim.model.meter import weight_bytes
from mirage_sim.model.offload import waiting_bytes


def bench_counts(config: CountsConfig) -> dict[str, Any]:
    """Count everything.

    Args:
        config: What is counted.

    Returns:
        `networks[name]` (parameters, bytes), `passes` (one row a length, references and branch),
        `calls[name]` (operations and peak of encoding, decoding and the prompt), `matrix_peak_bytes` of the
        largest pass, `world` (bytes of memory and latents), `sampling_steps`, `frames_per_latent`,
        `frames` (new pictures of the largest step), `step_flop` (decoding included), `published_seconds`,
        `floor` by card, `fits` by setting, and `aims`: the largest difference between what was counted and
        what the formulas tell.
    """
    codec = full_size_codec("meta").to("meta").eval()
    cells = (config.height // codec.spatial_stride, config.width // codec.spatial_stride)
    generator, text = loaded_shape(config.generator), empty_text_encoder(TextShape())
    networks = count_networks(generator, codec, text, config.ranks)
    passes, matrix = count_passes(generator, pass_shapes(config, generator.token_grid(cells)), cells)
    calls = count_codec(codec, max(config.lengths), cells) | count_text(text, TextShape(), config.prompt)
    world = world_bytes(config, cells)
    largest, frames = passes[-1], codec.temporal_stride * (max(config.lengths) - 1)
    step = config.steps * largest["counted"]["total"] + calls["decode"]["counted"]["total"]
    weights = {
        "generator": networks["backbone"]["bytes"] + networks["memory branch"]["bytes"],
        "codec": networks["VAE encoder"]["bytes"] + networks["VAE decoder"]["bytes"],
    }
    weights["resting codec"] = weights["codec"]
    sizes = [weight_bytes(block.parameters())["bytes"] for block in generator.blocks]
    weights["blocks"] = weights["generator"] - waiting_bytes(sizes)
    if text is not None:
        weights["text"] = networks["text encoder"]["bytes"]
    peaks = {name: call["peak_bytes"] for name, call in calls.items()}
    peaks |= {"generate": largest["peak_bytes"], "generate_matrix": matrix}
    published = SECONDS_PER_FRAME["Mirage"][-1]
    told = [abs(each["parameters"] - each["formula"]) for each in networks.values()]
    told += [
        abs(each["counted"][kind] - each["formula"][kind])
        for each in (*passes, *calls.values())
        for kind in each["formula"]
    ]
    aim = Aim("largest difference between counts and formulas", float(max(told)), high=0.0)
    return {
        "networks": networks,
        "passes": passes,
        "calls": calls,
        "matrix_peak_bytes": matrix,
        "world": world,
        "sampling_steps": config.steps,
        "frames_per_latent": codec.temporal_stride,
        "frames": frames,
        "step_flop": step,
        "published_seconds": published,
        "floor": floors(step, frames, published) if frames else [],
        "fits": fits(weights, peaks, world["bound"] + world["latents"]),
        "aims": [aim.as_dict()],
    }


def pass_shapes(config: CountsConfig, grid: tuple[int, int]) -> list[PassShape]:
    """Sequences of all passes that are counted, the largest last.

    Args:
        config: What is counted.
        grid: Tokens per column and row of a latent frame.

    Returns:
        One for each length, number of references, and without and with the branch.
    """
    return [
        PassShape(length, config.preceding, references, grid[0] * grid[1], config.prompt, branch)
        for branch in (False, True)
        for references in sorted(config.references)
        for length in sorted(config.lengths)
    ]


def world_bytes(config: CountsConfig, cells: tuple[int, int]) -> dict[str, int]:
    """Count what a world holds between steps.

    Args:
        config: What is counted.
        cells: Rows and columns of a latent frame.

    Returns:
        `entry` (bytes of one), `frame` (the entries of a latent frame of which nothing was known), `view` (a
        keyframe), `bound` (entries and keyframes at their maximum), `latent` (one latent frame in 32 bit) and
        `latents` (those of the longest sequence).
    """
    settings = full_size_memory(config.generator.channels)
    dtype, device = DTYPES[settings.dtype], torch.device("cpu")
    entry = Entries(1, settings.channels, dtype, 1, 1, device).bytes_per_entry
    ring = Keyframes(settings.keyframes, 1, settings.channels, dtype, device)
    identity = torch.eye(4)[None]
    ring.add(torch.zeros(1, settings.channels, *cells), torch.zeros(1, *cells), identity, identity[:, :3, :3])
    latent = 4 * settings.channels * cells[0] * cells[1]
    sequence = max(config.references) + max(config.lengths) + config.preceding
    return {
        "entry": entry,
        "frame": entry * cells[0] * cells[1],
        "view": ring.bytes_per_view,
        "bound": entry * settings.max_capacity + ring.bytes_per_view * settings.keyframes.count,
        "latent": latent,
        "latents": latent * sequence,
    }
