"""Size benchmark: whole steps at full size with random weights on a GPU, their seconds and peak memory.

Beside what was measured stand the operations that the network needs, counted by formulas, and two floors: the
time that they take at the card's published peak and at the rate of a large product measured in the same run.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from mirage_sim.checkpoints.load import check_device
from mirage_sim.evaluation.bench_config import SizeBenchConfig
from mirage_sim.evaluation.counts_cards import CARDS
from mirage_sim.evaluation.counts_formulas import PassShape, generator_flops
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.evaluation.published import SECONDS_PER_FRAME
from mirage_sim.evaluation.report import format_table, show
from mirage_sim.evaluation.whole_size import random_generator, whole_chunks
from mirage_sim.model.config import PRECEDING, PROMPT, SamplerConfig
from mirage_sim.model.full_size import PUBLISHED_SAMPLER
from mirage_sim.model.generator import Generator
from mirage_sim.model.offload import offload_generator
from mirage_sim.world.clock import now

PARTS = ("condition", "generate", "update", "show")


def bench_size(config: SizeBenchConfig) -> dict[str, Any]:
    """Time whole steps.

    Args:
        config: What is timed.

    Returns:
        `rows`, one for every length and number of passes: `length`, `steps`, `references` that were seen;
        seconds a picture by part and in `total` (medians over the chunks but the first), `first` of the
        first chunk, `peak_mib`, `flop` of the passes of a step, their `rate`, and `floor_published` and
        `floor_measured` in seconds a picture; `product_rate`, operations a second of a large product,
        `published_peak`, 0 if unknown, and `published`, seconds a picture published for the method.

    Raises:
        InputError: If the device is not there, or a setting does not work on it.
    """
    device = check_device(config.device)
    generator = random_generator(config.generator, device, config.seed)
    codec = full_size_codec().to(device).requires_grad_(False).eval()
    generator.set_attention(config.attention)
    rate = product_rate(device)
    if config.tiling:
        codec.autoencoder.enable_tiling()
    if config.offload is not None:
        offload_generator(generator, codec, device, config.offload)
    if config.compiled:
        generator.compile_blocks()
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = next((card.tflops * 1e12 for card in CARDS if card.name.split()[0] in name), 0.0)
    published = SECONDS_PER_FRAME["Mirage"][-1]
    rows = []
    for length in config.lengths:
        for steps in config.steps:
            sampler = SamplerConfig(**vars(PUBLISHED_SAMPLER) | {"steps": steps})
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
            timed = whole_chunks(generator, codec, config.chunks, config.size, length, sampler, config.seed)
            label = f"{length} frames, {steps} passes"
            chunks = list(tqdm(timed, total=config.chunks, desc=label, unit="chunk", disable=None))
            pictures = length * codec.temporal_stride
            references = round(median(each["references"] for each in chunks[1:]))
            flop = steps * _pass_flop(generator, config.size, codec.spatial_stride, length, references)
            row: dict[str, float] = {"length": length, "steps": steps, "first": chunks[0]["total"]}
            row |= {"references": references}
            row |= {part: median(each[part] for each in chunks[1:]) for part in (*PARTS, "total")}
            row |= {"peak_mib": chunks[-1]["peak_mib"], "flop": flop}
            row["rate"] = flop / pictures / row["generate"]
            row["floor_measured"] = flop / rate / pictures
            row["floor_published"] = flop / peak / pictures if peak else 0.0
            rows.append(row)
    return {"rows": rows, "product_rate": rate, "published_peak": peak, "aims": [], "published": published}


def product_rate(device: torch.device, size: int = 8192, repeats: int = 20) -> float:
    """Operations a second of a product of two large matrices in bfloat16, the median of some runs."""
    size = size if device.type == "cuda" else 512
    left, right = (torch.randn(size, size, device=device).bfloat16() for _ in range(2))
    taken = []
    for _ in range(repeats + 3):
        began = now(device)
        left @ right
        taken.append(now(device) - began)
    return 2.0 * size**3 / median(taken[3:])


def _pass_flop(generator: Generator, size: tuple[int, int], stride: int, length: int, references: int) -> int:
    """Operations of a pass over what a step adds, the frame that overlaps, references and preceding."""
    rows, columns = generator.token_grid((size[0] // stride, size[1] // stride))
    whole = PassShape(length + 1, PRECEDING, references, rows * columns, PROMPT, True)
    return generator_flops(generator.config, whole).total


def size_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `bench_size`: seconds a picture and peak memory by length and passes."""
    rows = []
    for row in result["rows"]:
        cells = [show(row[part], 3) for part in (*PARTS, "total", "floor_measured", "floor_published")]
        cells += [show(row["rate"] / 1e12, 0), show(row["peak_mib"] / 1024, 1)]
        rows.append((f"{row['length']} latent frames, {row['steps']} passes", cells))
    header = [*(f"{part}, s a picture" for part in (*PARTS, "total"))]
    header += ["floor of the passes by the measured product", "by the published peak"]
    return format_table(rows, [*header, "TFLOP/s of the passes", "peak, GiB"])
