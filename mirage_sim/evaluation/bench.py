"""The `bench` commands: arguments in, JSON and a printed table out."""

from __future__ import annotations

import argparse
import time
from typing import Any

import torch

from mirage_sim.errors import InputError
from mirage_sim.evaluation.bench_config import (
    PRESETS,
    CountsConfig,
    MemoryBenchConfig,
    ReadBenchConfig,
    SizeBenchConfig,
    StepBenchConfig,
)
from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.counts import bench_counts
from mirage_sim.evaluation.counts_report import counts_table
from mirage_sim.evaluation.memory_bench import bench_memory
from mirage_sim.evaluation.memory_report import memory_table, plot_memory
from mirage_sim.evaluation.options import add_model_options, add_out_option, finish, load_model
from mirage_sim.evaluation.read_bench import bench_read, read_table
from mirage_sim.evaluation.size_bench import bench_size, size_table
from mirage_sim.evaluation.step_bench import bench_step, step_table
from mirage_sim.model.config import KINDS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `step`, `read`, `memory`, `counts` and `full-size`.

    Args:
        parser: Of `mirage-sim bench`.
    """
    kinds = parser.add_subparsers(dest="bench", metavar="WHAT", required=True)
    step = kinds.add_parser("step", help="milliseconds of a step by part, and steps a second")
    add_model_options(step, "bench-step")
    step.add_argument("--steps", type=int, default=60, help="timed steps (default: %(default)s)")
    step.add_argument("--warm-up", type=int, default=20, help="steps before them (default: %(default)s)")
    step.add_argument("--vector", type=int, default=8, help="worlds of the vector (default: %(default)s)")
    step.add_argument("--seed", type=int, default=0, help="of walks and noise (default: %(default)s)")
    read = kinds.add_parser("read", help="our memory read against sort-and-scatter")
    add_out_option(read, "bench-read")
    read.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=list(ReadBenchConfig.sizes),
        help="entries (default: %(default)s)",
    )
    read.add_argument("--repeats", type=int, default=9, help="timed reads of each (default: %(default)s)")
    read.add_argument("--channels", type=int, default=16, help="of a token (default: %(default)s)")
    read.add_argument(
        "--grid", type=int, nargs=2, default=[16, 16], help="rows and columns of cells (default: 16 16)"
    )
    memory = kinds.add_parser("memory", help="what a chunk costs with every way to remember")
    add_model_options(memory, "bench-memory")
    memory.add_argument("--preset", choices=PRESETS, default="embedded", help="(default: %(default)s)")
    memory.add_argument("--methods", nargs="+", default=list(LABELS), help="(default: %(default)s)")
    memory.add_argument("--chunks", type=int, default=5, help="of 32 frames (default: %(default)s)")
    memory.add_argument(
        "--one-place",
        type=int,
        default=0,
        help="chunks after which the way is gone back, and on and on; 0 for a way without end (default: 0)",
    )
    memory.add_argument("--index", type=int, default=0, help="scene of the test split (default: %(default)s)")
    memory.add_argument("--seed", type=int, default=0, help="of way and noise (default: %(default)s)")
    memory.add_argument(
        "--encode-frames",
        type=int,
        default=33,
        help="full size: frames that are encoded, of 33, the time being scaled up; 0 for none (default: 33)",
    )
    counts = kinds.add_parser("counts", help="operations and bytes of the full size, counted without weights")
    add_out_option(counts, "bench-counts")
    counts.add_argument(
        "--lengths",
        type=int,
        nargs="+",
        default=list(CountsConfig.lengths),
        help="latent frames of a target, the last one of the step before included (default: %(default)s)",
    )
    counts.add_argument(
        "--references",
        type=int,
        nargs="+",
        default=list(CountsConfig.references),
        help="earlier views (default: %(default)s)",
    )
    counts.add_argument(
        "--steps", type=int, default=CountsConfig.steps, help="passes of a step (default: %(default)s)"
    )
    size = kinds.add_parser("full-size", help="whole steps at full size with random weights, on a GPU")
    add_out_option(size, "bench-full-size")
    told = SizeBenchConfig
    size.add_argument("--device", default=told.device, help="(default: %(default)s)")
    for name, default, what in (
        ("--lengths", told.lengths, "latent frames of a step"),
        ("--steps", told.steps, "passes of a step"),
    ):
        size.add_argument(
            name, type=int, nargs="+", default=list(default), help=f"{what} (default: %(default)s)"
        )
    size.add_argument("--size", type=int, nargs=2, default=list(told.size), help="rows and columns")
    size.add_argument("--chunks", type=int, default=told.chunks, help="steps (default: %(default)s)")
    size.add_argument("--compile", action="store_true", help="compile the blocks")
    size.add_argument("--offload", choices=KINDS, help="weights that wait in the host's memory")
    size.add_argument("--tiling", action="store_true", help="decode in tiles")
    size.add_argument("--attention", default=told.attention, help="back end of diffusers")
    size.add_argument("--seed", type=int, default=0, help="of weights and noise (default: %(default)s)")
    for each in (step, read, memory, counts, size):
        each.add_argument("--threads", type=int, help="threads of torch (default: as it finds the machine)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Carry out a benchmark.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Its figures, see `mirage_sim.evaluation.options.finish`.
    """
    if args.threads is not None:
        if args.threads < 1:
            raise InputError(f"threads must be at least 1, got {args.threads}")
        torch.set_num_threads(args.threads)
    began = time.perf_counter()
    if args.bench == "read":
        reads = ReadBenchConfig(tuple(args.sizes), args.repeats, args.channels, *args.grid)
        result = bench_read(reads)
        return finish(
            "bench read", args, reads, None, result, read_table(result), time.perf_counter() - began
        )
    if args.bench == "counts":
        counted = CountsConfig(
            lengths=tuple(args.lengths), references=tuple(args.references), steps=args.steps
        )
        result = bench_counts(counted)
        return finish(
            "bench counts", args, counted, None, result, counts_table(result), time.perf_counter() - began
        )
    if args.bench == "memory":
        chunks = MemoryBenchConfig(
            args.preset,
            tuple(args.methods),
            args.chunks,
            args.one_place,
            args.index,
            args.seed,
            args.encode_frames,
        )
        needed = load_model(args) if args.preset == "embedded" else None
        result = bench_memory(needed, chunks)
        result["files"] = [str(plot_memory(result, args.out / "memory.png"))]
        return finish(
            "bench memory", args, chunks, needed, result, memory_table(result), time.perf_counter() - began
        )
    if args.bench == "full-size":
        sizes = SizeBenchConfig(
            lengths=tuple(args.lengths),
            steps=tuple(args.steps),
            size=tuple(args.size),
            chunks=args.chunks,
            compiled=args.compile,
            offload=args.offload,
            tiling=args.tiling,
            attention=args.attention,
            device=args.device,
            seed=args.seed,
        )
        result = bench_size(sizes)
        return finish(
            "bench full-size", args, sizes, None, result, size_table(result), time.perf_counter() - began
        )
    steps = StepBenchConfig(args.steps, args.warm_up, args.vector, args.seed)
    model = load_model(args)
    result = bench_step(model, steps)
    return finish("bench step", args, steps, model, result, step_table(result), time.perf_counter() - began)
