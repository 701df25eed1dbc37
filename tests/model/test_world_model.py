"""Saving and loading a world model, and what damaged folders say."""

import json

import pytest
import torch

from mirage_sim.checkpoints import load_world_model
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.model.config import CONFIG_FILE, WEIGHTS_FILE
from tests.models import save_tiny_world_model, tiny_world_model


def test_round_trip_keeps_weights_to_bf16_and_the_configuration(tmp_path):
    model = tiny_world_model()
    loaded = load_world_model(save_tiny_world_model(tmp_path), dtype=torch.float32)
    assert loaded.config == model.config
    assert len(loaded.weights_hash) == 64
    for name, value in loaded.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], atol=1e-6, rtol=2**-8)


def test_saving_what_was_loaded_changes_nothing(tmp_path):
    loaded = load_world_model(save_tiny_world_model(tmp_path / "a"), dtype=torch.float32)
    loaded.save(tmp_path / "b")
    assert (tmp_path / "a" / WEIGHTS_FILE).read_bytes() == (tmp_path / "b" / WEIGHTS_FILE).read_bytes()


def test_a_missing_file_is_named(tmp_path):
    save_tiny_world_model(tmp_path)
    (tmp_path / WEIGHTS_FILE).unlink()
    with pytest.raises(FileFormatError, match=r"must hold model\.safetensors"):
        load_world_model(tmp_path)


@pytest.mark.parametrize("harm", ["truncate", "flip"])
def test_changed_weights_are_refused(tmp_path, harm):
    save_tiny_world_model(tmp_path)
    content = bytearray((tmp_path / WEIGHTS_FILE).read_bytes())
    if harm == "truncate":
        content = content[:-100]
    else:
        content[-10] ^= 1
    (tmp_path / WEIGHTS_FILE).write_bytes(content)
    with pytest.raises(FileFormatError, match="truncated or changed"):
        load_world_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"kind": "cake"}, "must be mirage_sim.world_model"), ({"schema_version": 99}, "version 99")],
)
def test_another_kind_or_version_is_refused(tmp_path, change, message):
    save_tiny_world_model(tmp_path)
    text = json.loads((tmp_path / CONFIG_FILE).read_text()) | change
    (tmp_path / CONFIG_FILE).write_text(json.dumps(text))
    with pytest.raises(FileFormatError, match=message):
        load_world_model(tmp_path)


def test_an_unknown_setting_is_refused(tmp_path):
    save_tiny_world_model(tmp_path)
    text = json.loads((tmp_path / CONFIG_FILE).read_text())
    text["config"]["sampler"]["magic"] = 1
    (tmp_path / CONFIG_FILE).write_text(json.dumps(text))
    with pytest.raises(FileFormatError, match="magic"):
        load_world_model(tmp_path)


def test_unknown_devices_are_named():
    with pytest.raises(InputError, match="device must be"):
        load_world_model("embedded", device="abacus")
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match="without a CUDA device"):
            load_world_model("embedded", device="cuda")
