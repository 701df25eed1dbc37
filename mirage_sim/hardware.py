"""Hardware: what a result was computed on, as far as it may decide its last bits."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

LIBRARIES = ("mirage-sim", "diffusers", "numpy")


def processor_name() -> str:
    """Name the processor, as well as the system knows it."""
    listing = Path("/proc/cpuinfo")
    if listing.is_file():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def computed_on(device: torch.device, dtype: torch.dtype, threads: int) -> dict[str, str]:
    """Describe what decides the last bits of a result, beside its inputs.

    Args:
        device: Where the networks run.
        dtype: Type of the large weights.
        threads: Threads of torch.

    Returns:
        `device`, `processor`, `instructions`, `dtype`, `threads`, `gpu` on a CUDA device, and a version of
        each library, all as texts.
    """
    described = {
        "device": str(device),
        "processor": processor_name(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "dtype": str(dtype).removeprefix("torch."),
        "threads": str(threads),
    }
    if device.type == "cuda":
        described["gpu"] = torch.cuda.get_device_name(device)
    described["torch_version"] = str(torch.__version__)  # with the build, as +cpu
    return described | {f"{name.replace('-', '_')}_version": _version(name) for name in LIBRARIES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
