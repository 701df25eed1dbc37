"""Report of the counts: tables of one form, for the terminal and for a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from mirage_sim.evaluation.counts_cards import CARDS, ROOM
from mirage_sim.evaluation.counts_networks import TILE_PIXELS, TILE_STRIDE
from mirage_sim.evaluation.report import format_table, show

Rows = list[tuple[str, list[str]]]
_KINDS = ("linear", "attention", "convolution", "total")
_CALLS = {
    "encode": "encode a first picture",
    "encode_chunk": "encode all pictures of a step, as colours need it",
    "decode": "decode a step",
    "decode_tiled": f"decode a step in tiles of {TILE_PIXELS}, {TILE_STRIDE} apart",
    "prompt": "embed a prompt",
}


def networks_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: parameters and bytes of the networks."""
    rows = [
        (name, [f"{told['parameters']:,}", f"{told['float32']:,}", _gib(told["bytes"])])
        for name, told in result["networks"].items()
    ]
    if "text encoder" not in result["networks"]:
        rows.append(("text encoder: not counted, transformers is not installed", ["-", "-", "-"]))
    return ["parameters", "of them in 32 bit", "GiB"], rows


def passes_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: operations of a pass and a step by length, with most references and the branch."""
    steps, pictures, passes = result["sampling_steps"], result["frames_per_latent"], result["passes"]
    most, fewest = (pick(each["references"] for each in passes) for pick in (max, min))
    rows = []
    for each in passes:
        if not each["branch"] or each["references"] != most:
            continue
        length, total = each["target"], each["counted"]["total"]
        other = [_pass(passes, length, fewest, True), _pass(passes, length, most, False)]
        a_frame = [steps * total / (pictures * new) if new else None for new in (length - 1, length)]
        cells = [
            *(_tera(each["counted"][kind]) for kind in _KINDS),
            *(_tera(one["counted"]["total"]) for one in other),
            show(steps * total / 1e15, 3),
            *(_tera(one) for one in a_frame),
            _gib(each["peak_bytes"]),
        ]
        rows.append((f"{length}: {each['sequence']:,} tokens", cells))
    header = [
        *(f"{kind}, TFLOP" for kind in (*_KINDS[:-1], "pass")),
        f"with {fewest} references",
        "without branch",
        f"{steps} passes, PFLOP",
        "TFLOP a picture",
        "the same, all frames new",
        "alive, GiB",
    ]
    return header, rows


def calls_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: what is called once a step or once a world, and what a world holds."""
    rows = [
        (label, [*(_tera(result["calls"][name]["counted"][kind]) for kind in _KINDS), _gib(peak)])
        for name, label in _CALLS.items()
        if name in result["calls"]
        for peak in [result["calls"][name]["peak_bytes"]]
    ]
    largest = result["passes"][-1]
    matrix = f"largest pass ({largest['sequence']:,} tokens), attention with its matrix"
    rows.append((matrix, ["-", "-", "-", "-", _gib(result["matrix_peak_bytes"])]))
    return [*(f"{kind}, TFLOP" for kind in _KINDS), "alive, GiB"], rows


def world_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: what a world holds between steps."""
    labels = {
        "entry": "one entry of the memory",
        "frame": "entries of a latent frame of which nothing was known",
        "view": "one keyframe",
        "bound": "the memory at its bound, keyframes included",
        "latent": "one latent frame in 32 bit",
        "latents": "latents of the longest sequence",
    }
    told = result["world"]
    rows = [(label, [f"{told[name]:,}", show(told[name] / 2**20, 3)]) for name, label in labels.items()]
    return ["bytes", "MiB"], rows


def floor_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: the least seconds a picture by card, computed from published peaks."""
    rows = [
        (each["name"], [show(each["tflops"], 0), show(each["seconds"], 3), f"{100 * each['share']:.0f} %"])
        for each in result["floor"]
    ]
    seconds = result["published_seconds"]
    header = [
        "published peak, TFLOP/s",
        "computed floor, s a picture",
        f"share of the peak that {seconds:g} s needs",
    ]
    return header, rows


def fits_rows(result: Mapping[str, Any]) -> tuple[list[str], Rows]:
    """Header and rows: which settings fit which card, computed from the counts."""
    rows = [
        (each["name"], [_gib(each["bytes"]), *("yes" if fit else "no" for fit in each["cards"].values())])
        for each in result["fits"]
    ]
    return ["computed, GiB", *(f"{card.name}, {card.gib:.0f}" for card in CARDS)], rows


TABLES: dict[str, tuple[str, Callable[[Mapping[str, Any]], tuple[list[str], Rows]]]] = {
    "networks": ("network", networks_rows),
    "passes": ("a pass through the generator by latent frames of the target", passes_rows),
    "calls": ("around the generator", calls_rows),
    "world": ("what a world holds", world_rows),
    "floor": ("the largest step and its decoding, computed from published peaks, not measured", floor_rows),
    "fits": (f"what fits into {ROOM:.0%} of a card, computed, not measured", fits_rows),
}
"""By name: title, and header and rows."""


def counts_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `bench_counts` for the terminal."""
    told = []
    for title, lay_out in TABLES.values():
        header, rows = lay_out(result)
        told.append(f"{title}\n{format_table(rows, header)}")
    return "\n\n".join(told)


def _pass(passes: Sequence[Mapping[str, Any]], target: int, references: int, branch: bool) -> Any:
    wanted = (target, references, branch)
    return next(p for p in passes if (p["target"], p["references"], p["branch"]) == wanted)


def _tera(flop: float | None) -> str:
    return show(None if flop is None else flop / 1e12, 2)


def _gib(size: int) -> str:
    return show(size / 2**30, 2)
