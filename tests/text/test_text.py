"""Prompts: UMT5 and a real tokenizer, tiny, with random weights."""

import gc
import json
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, UMT5EncoderModel

from mirage_sim.cli.main import main
from mirage_sim.errors import FileFormatError, InputError, InputTypeError
from mirage_sim.text import TextEncoder, fit_context, load_embeddings, save_embeddings
from tests.full_size import TOKENS, write_text

FLOAT = torch.float32


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("text"))


def encoder(folder) -> TextEncoder:
    return TextEncoder(folder, dtype=FLOAT, tokens=TOKENS)


def test_an_embedding_is_what_a_padded_call_gives_and_zero_behind_it(folder):
    network = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "tokenizer")
    prompts = ["a kitchen", "a kitchen with red chairs", "room"]
    told = tokenizer(prompts, padding="max_length", max_length=TOKENS, truncation=True, return_tensors="pt")
    with torch.no_grad():
        whole = network(told.input_ids, told.attention_mask).last_hidden_state
    expected = whole * told.attention_mask[..., None]
    torch.testing.assert_close(encoder(folder).encode(prompts), expected)
    assert told.attention_mask.sum(dim=1).tolist() == [3, 6, 2]


def test_what_is_too_long_is_cut_off(folder):
    long = encoder(folder).encode(["a kitchen with red chairs " * 5])[0]
    assert bool((long != 0).any(dim=1).all())


def test_spaces_and_entities_do_not_matter(folder):
    ours = encoder(folder)
    first, second = ours.encode([" a   kitchen&nbsp;with\n red chairs ", "a kitchen with red chairs"])
    assert torch.equal(first, second)


def test_weights_come_late_and_go_when_told(folder):
    ours = encoder(folder)
    assert (ours.loaded, ours.width) == (False, 16)
    first = ours.encode(["a room"])
    network = weakref.ref(ours._parts[1])
    ours.unload()
    gc.collect()
    assert network() is None
    assert torch.equal(ours.encode(["a room"]), first)
    assert not ours.loaded  # it was known
    ours.encode(["a red room"])
    assert ours.loaded


def test_an_encoder_in_shards(folder, tmp_path):
    write_text(tmp_path, shard="3KB")
    assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
    assert torch.equal(encoder(tmp_path).encode(["a room"]), encoder(folder).encode(["a room"]))


def test_stored_embeddings_come_back_without_their_padding(folder, tmp_path):
    path, embedded = tmp_path / "prompt.safetensors", encoder(folder).encode(["a kitchen"])[0]
    save_embeddings(path, embedded, "a kitchen")
    stored, prompt = load_embeddings(path)
    assert (prompt, stored.shape) == ("a kitchen", (3, 16))
    assert torch.equal(fit_context(stored, TOKENS, 16), embedded)
    assert [file.name for file in tmp_path.iterdir()] == ["prompt.safetensors"]


def test_the_command_stores_a_prompt(folder, tmp_path, capsys):
    path = tmp_path / "prompt.safetensors"
    assert main(["embed", str(folder), "--prompt", "a red room", "--out", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["tokens"], told["width"], told["prompt"]) == (4, 16, "a red room")
    assert load_embeddings(path)[1] == "a red room"


@pytest.mark.parametrize(
    ("prompts", "error"), [([], InputError), ("a room", InputTypeError), ([3], InputTypeError)]
)
def test_prompts_that_are_none(folder, prompts, error):
    with pytest.raises(error, match="prompts must"):
        encoder(folder).encode(prompts)


@pytest.mark.parametrize("change", ["no tokenizer", "empty tokenizer", "missing", "another", "no folder"])
def test_a_damaged_folder_is_refused(change, tmp_path):
    write_text(tmp_path)
    weights, config = (tmp_path / "text_encoder" / name for name in ("model.safetensors", "config.json"))
    for file in (tmp_path / "tokenizer").iterdir():
        if "tokenizer" in change:
            file.unlink()
    if change == "no tokenizer":
        (tmp_path / "tokenizer").rmdir()
    elif change == "missing":
        tensors = load_file(weights)
        del tensors["encoder.final_layer_norm.weight"]
        save_file(tensors, weights, {"format": "pt"})
    elif change == "another":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "t5"}))
    with pytest.raises(FileFormatError, match=r"must (hold|be)"):
        encoder(tmp_path / "nowhere" if change == "no folder" else tmp_path).encode(["a room"])


@pytest.mark.parametrize("change", ["missing", "truncated", "another kind"])
def test_a_file_that_is_no_embedding(change, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_file({"embeddings": torch.ones(2, 16)}, path, {"kind": "else"})
    if change == "truncated":
        path.write_bytes(path.read_bytes()[:20])
    elif change == "missing":
        path.unlink()
    with pytest.raises(FileFormatError, match="must be"):
        load_embeddings(path)


def test_an_embedding_that_does_not_fit():
    with pytest.raises(InputError, match="at most 6 tokens, got 7"):
        fit_context(torch.ones(7, 16), TOKENS, 16)
    with pytest.raises(InputError, match="embeddings must be"):
        fit_context(torch.ones(2, 8), TOKENS, 16)
