"""Prompts: UMT5 and a real tokenizer, tiny, with random weights."""

import gc
import json
import weakref

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, UMT5EncoderModel

from mirage_sim.cli.main import main
from mirage_sim.errors import FileFormatError, FileWriteError, InputError, InputTypeError
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
    prompt = "a kitchen with red chairs " * 5
    network = UMT5EncoderModel.from_pretrained(folder / "text_encoder").eval()
    ids = [3, 4, 5, 6, 7, 1]  # the first words, and the prompt's end in the last place
    assert AutoTokenizer.from_pretrained(folder / "tokenizer")(prompt).input_ids[:5] == ids[:5]
    with torch.no_grad():
        expected = network(torch.tensor([ids])).last_hidden_state
    torch.testing.assert_close(encoder(folder).encode([prompt]), expected)


def test_an_embedding_does_not_depend_on_its_batch_mates(folder):
    prompts = ["a kitchen", "a kitchen with red chairs", "", "a kitchen"]
    together = encoder(folder).encode(prompts)
    assert together.shape == (4, TOKENS, 16)
    for prompt, embedded in zip(prompts, together, strict=True):
        torch.testing.assert_close(embedded, encoder(folder).encode([prompt])[0])


def test_in_16_bit_an_embedding_is_about_the_same(folder):
    half = TextEncoder(folder, tokens=TOKENS).encode(["a red room"])
    assert half.dtype == FLOAT
    torch.testing.assert_close(half, encoder(folder).encode(["a red room"]), atol=0.05, rtol=0.05)


def test_known_prompts_are_not_embedded_again(folder, monkeypatch):
    monkeypatch.setattr("mirage_sim.text.encoder._KEPT", 2)
    ours, calls = encoder(folder), []
    first = ours.encode(["a room"])
    ours._parts[1].register_forward_pre_hook(lambda *_: calls.append(1))
    first.zero_()  # what was handed out is the caller's
    assert bool(ours.encode([" a  room"]).any())
    assert len(calls) == 0
    ours.encode(["red", "a room", "chairs"])  # "red" was used longest ago
    assert len(calls) == 2
    ours.encode(["a room", "chairs"])
    assert len(calls) == 2
    ours.encode(["red"])
    assert len(calls) == 3


def test_spaces_and_entities_do_not_matter(folder):
    ours = encoder(folder)
    first, second = ours.encode([" a   kitchen&nbsp;with\n red chairs ", "a kitchen with red chairs"])
    assert torch.equal(first, second)


def test_weights_come_late_and_go_when_told(folder):
    ours = encoder(folder)
    assert (ours.loaded, ours.width) == (False, 16)
    first = ours.encode(["a room"])
    assert ours.loaded
    network, weight = weakref.ref(ours._parts[1]), weakref.ref(ours._parts[1].shared.weight)
    ours.unload()
    gc.collect()
    assert (network(), weight()) == (None, None)
    assert torch.equal(ours.encode(["a room"]), first)
    assert not ours.loaded  # it was known
    ours.encode(["a red room"])
    assert ours.loaded


def test_an_encoder_in_shards(folder, tmp_path):
    write_text(tmp_path, shard="3KB")
    assert len(list((tmp_path / "text_encoder").glob("*.safetensors"))) > 1
    assert torch.equal(encoder(tmp_path).encode(["a room"]), encoder(folder).encode(["a room"]))


def change_tensors(folder, change):
    path = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, {"format": "pt"})


@pytest.mark.parametrize(
    "names", [("shared",), ("encoder.embed_tokens",), ("shared", "encoder.embed_tokens")]
)
@pytest.mark.parametrize("tied", [True, False])
def test_the_table_of_words_may_be_stored_under_either_name(names, tied, folder, tmp_path):
    write_text(tmp_path)
    config = tmp_path / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tie_word_embeddings": tied}))

    def rename(tensors):
        table = tensors.pop("shared.weight")
        tensors.update({f"{name}.weight": table.clone() for name in names})

    change_tensors(tmp_path, rename)
    assert torch.equal(encoder(tmp_path).encode(["a room"]), encoder(folder).encode(["a room"]))


NORM = "encoder.final_layer_norm.weight"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda tensors: tensors.pop(NORM), rf"missing.*{NORM}"),
        (lambda tensors: tensors.pop("shared.weight"), r"missing.*shared\.weight"),
        (lambda tensors: tensors.update(more=torch.ones(2)), r"unexpected.*more"),
        (lambda tensors: tensors.update({NORM: torch.ones(5)}), rf"mismatched.*{NORM}.*5.*16"),
    ],
)
def test_tensors_that_do_not_fit_are_listed(change, told, tmp_path):
    write_text(tmp_path)
    change_tensors(tmp_path, change)
    ours = encoder(tmp_path)
    with pytest.raises(FileFormatError, match=told):
        ours.encode(["a room"])
    assert not ours.loaded


@pytest.mark.parametrize(
    "values",
    [{"architectures": ["UMT5ForConditionalGeneration"]}, {"architectures": None}, {"d_model": "16"}],
)
def test_another_class_is_refused_before_weights_are_read(values, tmp_path):
    write_text(tmp_path)
    (tmp_path / "text_encoder" / "model.safetensors").unlink()
    assert encoder(tmp_path).width == 16
    config = tmp_path / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | values))
    with pytest.raises(FileFormatError, match=r"text_encoder must hold an? (UMT5EncoderModel|umt5 model)"):
        encoder(tmp_path)


def test_stored_embeddings_come_back_without_their_padding(folder, tmp_path):
    path, embedded = tmp_path / "prompt.safetensors", encoder(folder).encode(["a kitchen"])[0]
    save_embeddings(path, embedded, "a kitchen")
    stored, prompt = load_embeddings(path)
    assert (prompt, stored.shape) == ("a kitchen", (3, 16))
    assert torch.equal(fit_context(stored, TOKENS, 16), embedded)
    assert [file.name for file in tmp_path.iterdir()] == ["prompt.safetensors"]


def test_a_prompt_need_not_be_known(tmp_path):
    path = tmp_path / "prompt.safetensors"
    for prompt in ("before", "", None):
        save_embeddings(path, torch.ones(2, 16), prompt)
        assert load_embeddings(path)[1] == prompt


def test_a_stored_file_has_the_rights_of_any_new_file(tmp_path):
    save_embeddings(tmp_path / "prompt.safetensors", torch.ones(2, 16))
    (tmp_path / "other").touch()
    rights = {file.stat().st_mode for file in tmp_path.iterdir()}
    assert len(rights) == 1


def test_what_cannot_be_written_leaves_nothing_behind(folder, tmp_path, capsys):
    taken, nowhere = tmp_path / "folder", tmp_path / "no" / "prompt.safetensors"
    taken.mkdir()
    for path in (taken, nowhere):
        with pytest.raises(FileWriteError, match="could not be written") as refused:
            save_embeddings(path, torch.ones(2, 16))
        assert str(path) in str(refused.value)
    assert list(tmp_path.iterdir()) == [taken]
    with pytest.raises(InputError, match="embeddings must be"):
        save_embeddings(nowhere, torch.ones(2))
    assert main(["embed", str(folder), "--prompt", "a red room", "--out", str(taken)]) == 2
    assert str(taken) in capsys.readouterr().err


def test_the_command_stores_a_prompt(folder, tmp_path, capsys):
    path = tmp_path / "prompt.safetensors"
    assert main(["embed", str(folder), "--prompt", "a red room", "--out", str(path), "--json"]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["tokens"], told["width"], told["prompt"]) == (4, 16, "a red room")
    assert load_embeddings(path)[1] == "a red room"


@pytest.mark.parametrize(
    ("prompts", "error"),
    [
        ([], InputError),
        ("a room", InputTypeError),
        ([3], InputTypeError),
        (None, InputTypeError),
        (iter(["a room"]), InputTypeError),
    ],
)
def test_prompts_that_are_none(folder, prompts, error):
    with pytest.raises(error, match="prompts must"):
        encoder(folder).encode(prompts)


@pytest.mark.parametrize(
    "change", ["no tokenizer", "empty tokenizer", "no weights", "no shard", "cut", "another", "no folder"]
)
def test_a_damaged_folder_is_refused(change, tmp_path):
    write_text(tmp_path, shard="3KB" if change == "no shard" else "4GB")
    weights, config = (tmp_path / "text_encoder" / name for name in ("model.safetensors", "config.json"))
    for file in (tmp_path / "tokenizer").iterdir():
        if "tokenizer" in change:
            file.unlink()
    if change == "no tokenizer":
        (tmp_path / "tokenizer").rmdir()
    elif change == "no weights":
        weights.unlink()
    elif change == "no shard":
        next(weights.parent.glob("model-*.safetensors")).unlink()
    elif change == "cut":
        weights.write_bytes(weights.read_bytes()[:-10])
    elif change == "another":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "t5"}))
    with pytest.raises(FileFormatError, match=r"must (hold|be)"):
        encoder(tmp_path / "nowhere" if change == "no folder" else tmp_path).encode(["a room"])


@pytest.mark.parametrize("kept", [0, 20, -1, None])
def test_a_file_that_is_damaged_or_missing(kept, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_embeddings(path, torch.ones(2, 16), "a room")
    content = path.read_bytes()
    path.unlink()
    if kept is not None:
        path.write_bytes(content[:kept])
    with pytest.raises(FileFormatError, match="must be a stored embedding"):
        load_embeddings(path)


@pytest.mark.parametrize(
    ("tensors", "about", "told"),
    [
        (
            {"embeddings": torch.ones(2, 16)},
            {"kind": "else"},
            "must be mirage_sim.prompt version 1, got else",
        ),
        (
            {"embeddings": torch.ones(2, 16)},
            {"schema_version": "2"},
            "must be .* version 1, got .* version 2",
        ),
        ({"embeddings": torch.ones(1, 2, 16)}, {}, r"\[L, D\], got .*\[1, 2, 16\]"),
        ({"embeddings": torch.ones(2, 16).int()}, {}, r"float32 \[L, D\], got .*int32"),
        ({"others": torch.ones(2, 16)}, {}, r"must hold embeddings .*others"),
    ],
)
def test_a_file_that_is_no_embedding(tensors, about, told, tmp_path):
    path = tmp_path / "prompt.safetensors"
    save_file(tensors, path, {"kind": "mirage_sim.prompt", "schema_version": "1"} | about)
    with pytest.raises(FileFormatError, match=told):
        load_embeddings(path)


def test_an_embedding_that_does_not_fit():
    with pytest.raises(InputError, match="at most 6 tokens, got 7"):
        fit_context(torch.ones(7, 16), TOKENS, 16)
    with pytest.raises(InputError, match="embeddings must be"):
        fit_context(torch.ones(2, 8), TOKENS, 16)
