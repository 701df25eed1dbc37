"""Folders of weights, made once and copied for every test."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from mirage_sim.checkpoints import Checkpoint, open_checkpoint
from mirage_sim.model.generator import Generator
from tests.checkpoints.official import TINY, write_official
from tests.models import save_backbone, wan21_autoencoder


@pytest.fixture(scope="session")
def official_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_official(tmp_path_factory.mktemp("template") / "official")


@pytest.fixture(scope="session")
def diffusers_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What diffusers itself writes, the backbone in several files."""
    folder = tmp_path_factory.mktemp("template") / "diffusers"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = Generator(TINY)
        vae = wan21_autoencoder()
    save_backbone(generator, folder / "transformer", max_shard_size="40KB")
    vae.save_pretrained(folder / "vae")
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 1
    return folder


@pytest.fixture
def official(official_template: Path, tmp_path: Path) -> Path:
    """An official folder, with published files of branch and adapters in it."""
    return shutil.copytree(official_template, tmp_path / "official")


@pytest.fixture
def diffusers_folder(diffusers_template: Path, tmp_path: Path) -> Path:
    return shutil.copytree(diffusers_template, tmp_path / "diffusers")


@pytest.fixture
def checkpoint(official: Path) -> Checkpoint:
    return open_checkpoint(official, official / "branch.safetensors", official / "adapters.safetensors")
