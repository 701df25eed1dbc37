"""Resume: which folders a run goes on from."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch

from mirage_sim.training.resume import resume_run, save_run


def test_copies_beside_the_checkpoints_do_not_count(tmp_path: Path) -> None:
    """A folder that was copied, hidden or named by somebody is not what a run goes on from."""
    module = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(module.parameters())
    save_run(tmp_path, 2, {}, module, optimizer, None)
    for name in ("00000009 (copy)", ".00000009", "backup"):
        shutil.copytree(tmp_path / "00000002", tmp_path / name)
        (tmp_path / name / "run.json").write_text('{"step": 9, "about": {}}')
    (tmp_path / "._00000002").write_bytes(b"\x00\x05\x16\x07")
    assert resume_run(tmp_path, {}, module, optimizer, None) == 2
