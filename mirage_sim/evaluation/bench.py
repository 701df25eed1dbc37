"""The `bench` commands: arguments in, JSON and a printed table out.

Arguments are checked before torch, or the module of a benchmark, is imported.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

from mirage_sim.arguments import check_at_least, made_for
from mirage_sim.evaluation.bench_config import (
    PRESETS,
    CountsConfig,
    MemoryBenchConfig,
    ReadBenchConfig,
    SizeBenchConfig,
    StepBenchConfig,
)
from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.options import (
    add_model_options,
    add_out_option,
    check_model_options,
    finish,
    load_model,
)
from mirage_sim.model.config import OFFLOADS

Args = argparse.Namespace
Result = dict[str, Any]


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
    size.add_argument("--offload", choices=OFFLOADS, help="weights that wait in the host's memory")
    size.add_argument("--tiling", action="store_true", help="decode in tiles")
    size.add_argument("--attention", default=told.attention, help="back end of diffusers")
    size.add_argument("--seed", type=int, default=0, help="of weights and noise (default: %(default)s)")
    for each in (step, read, memory, counts, size):
        each.add_argument("--threads", type=int, help="threads of torch (default: as it finds the machine)")


CONFIGS: dict[str, Callable[[Args], Any]] = {
    "step": lambda args: StepBenchConfig(args.steps, args.warm_up, args.vector, args.seed),
    "read": lambda args: ReadBenchConfig(tuple(args.sizes), args.repeats, args.channels, *args.grid),
    "memory": lambda args: MemoryBenchConfig(
        args.preset,
        tuple(args.methods),
        args.chunks,
        args.one_place,
        args.index,
        args.seed,
        args.encode_frames,
    ),
    "counts": lambda args: CountsConfig(
        lengths=tuple(args.lengths), references=tuple(args.references), steps=args.steps
    ),
    "full-size": lambda args: SizeBenchConfig(
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
    ),
}
"""What turns arguments into a config, which checks them."""


def run(args: Args) -> Result:
    """Check the arguments, and carry out a benchmark.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Its figures, see `mirage_sim.evaluation.options.finish`.

    Raises:
        InputError: If an argument is wrong.
    """
    if args.threads is not None:
        check_at_least("--threads", args.threads, 1)
    config = CONFIGS[args.bench](args)
    check_model_options(args)
    with made_for("--out", args.out):
        import torch

        if args.threads is not None:
            torch.set_num_threads(args.threads)
        began = time.perf_counter()
        whole = args.bench == "step" or (args.bench == "memory" and config.preset == "embedded")
        model = load_model(args) if whole else None
        result, table = RUNS[args.bench](config, model, args)
        seconds = time.perf_counter() - began
        return finish(f"bench {args.bench}", args, config, model, result, table, seconds)


def _run_step(config: StepBenchConfig, model: Any, args: Args) -> tuple[Result, str]:
    from mirage_sim.evaluation.step_bench import bench_step, step_table

    result = bench_step(model, config)
    return result, step_table(result)


def _run_read(config: ReadBenchConfig, model: None, args: Args) -> tuple[Result, str]:
    from mirage_sim.evaluation.read_bench import bench_read, read_table

    result = bench_read(config)
    return result, read_table(result)


def _run_memory(config: MemoryBenchConfig, model: Any, args: Args) -> tuple[Result, str]:
    from mirage_sim.evaluation.memory_bench import bench_memory
    from mirage_sim.evaluation.memory_report import memory_table, plot_memory

    result = bench_memory(model, config)
    result["files"] = [str(plot_memory(result, args.out / "memory.png"))]
    return result, memory_table(result)


def _run_counts(config: CountsConfig, model: None, args: Args) -> tuple[Result, str]:
    from mirage_sim.evaluation.counts import bench_counts
    from mirage_sim.evaluation.counts_report import counts_table

    result = bench_counts(config)
    return result, counts_table(result)


def _run_size(config: SizeBenchConfig, model: None, args: Args) -> tuple[Result, str]:
    from mirage_sim.evaluation.size_bench import bench_size, size_table

    result = bench_size(config)
    return result, size_table(result)


RUNS: dict[str, Callable[..., tuple[Result, str]]] = {
    "step": _run_step,
    "read": _run_read,
    "memory": _run_memory,
    "counts": _run_counts,
    "full-size": _run_size,
}
"""What carries a benchmark out, given config, model and arguments: figures and their table."""
