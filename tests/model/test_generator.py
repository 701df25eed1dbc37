"""The walk through the backbone's parts gives what diffusers' own forward pass gives, and no more."""

import torch

from mirage_sim.model.config import GeneratorConfig, LoRAConfig
from mirage_sim.model.generator import TIMESTEPS, Generator
from mirage_sim.model.lora import add_lora, merge_lora
from mirage_sim.model.positions import rotary_embedding, sequence_positions
from tests.models import wan_transformer

CONFIG = GeneratorConfig(4, 6, 2, 12, 3, 32, 16, (1, 2, 2), 2)


def make_generator(hints: bool = True) -> Generator:
    torch.manual_seed(0)
    generator = Generator(CONFIG)
    if hints:
        for project in generator.branch.after_proj:
            torch.nn.init.normal_(project.weight, std=0.3)
    return generator.requires_grad_(False).eval()


def inputs(batch: int = 2) -> dict[str, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return {
        "target": torch.randn(batch, 1, 4, 4, 4, generator=rng),
        "sigma": torch.rand(batch, 1, 2, 2, generator=rng),
        "context": torch.randn(batch, 1, 16, generator=rng),
        "preceding": torch.randn(batch, 1, 4, 4, 4, generator=rng),
        "references": torch.randn(batch, 2, 4, 4, 4, generator=rng),
        "condition": torch.randn(batch, 1, 6, 4, 4, generator=rng),
    }


def test_rotary_embedding_is_the_backbones_own_for_its_positions():
    ours = rotary_embedding(sequence_positions(0, 3, 2, 2), CONFIG.head_dim)
    theirs = wan_transformer(CONFIG).rope(torch.zeros(1, 4, 3, 4, 4))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b.float(), atol=1e-6, rtol=0)


def test_reference_positions_are_negative_in_time_and_one_frame_lower():
    positions = sequence_positions(2, 3, 2, 4).reshape(5, 2, 4, 3)
    assert positions[..., 0].amin(dim=(1, 2)).tolist() == [-2, -1, 0, 1, 2]
    assert positions[:2, ..., 1].flatten().unique().tolist() == [2, 3]
    assert positions[2:, ..., 1].flatten().unique().tolist() == [0, 1]


def test_without_references_and_hints_it_is_the_plain_backbone():
    generator = make_generator()
    given = inputs()
    ours = generator(given["target"], given["sigma"], given["context"], given["preceding"])
    video = torch.cat([given["target"], given["preceding"]], dim=1).transpose(1, 2)
    levels = torch.cat([given["sigma"].flatten(1), torch.zeros(2, 4)], dim=1)
    judge = wan_transformer(CONFIG)
    judge.load_state_dict(generator.backbone.state_dict())
    theirs = judge(video, levels * TIMESTEPS, given["context"]).sample.transpose(1, 2)
    torch.testing.assert_close(ours, theirs[:, :1], atol=2e-5, rtol=1e-4)


def test_an_untrained_branch_changes_nothing_and_a_trained_one_does():
    given = inputs()
    silent = make_generator(hints=False)
    plain = {key: value for key, value in given.items() if key != "condition"}
    torch.testing.assert_close(silent(**given), silent(**plain))
    speaking = make_generator()
    assert (speaking(**given) - speaking(**plain)).abs().max() > 1e-3


def test_the_branch_starts_as_a_copy_of_the_backbones_blocks():
    generator = make_generator()
    assert generator.branch.places == (0, 2)
    for block, place in zip(generator.branch.blocks, generator.branch.places, strict=True):
        for name, value in block.state_dict().items():
            assert torch.equal(value, generator.backbone.blocks[place].state_dict()[name])


def test_references_and_preceding_frames_are_seen():
    generator = make_generator()
    given = inputs()
    whole = generator(**given)
    for name in ("references", "preceding"):
        changed = dict(given)
        changed[name] = given[name] + 1.0
        assert (generator(**changed) - whole).abs().max() > 1e-4


def test_a_sample_does_not_depend_on_its_batch_mates():
    generator = make_generator()
    given = inputs(3)
    whole = generator(**given)
    alone = generator(**{key: value[1:2] for key, value in given.items()})
    torch.testing.assert_close(whole[1:2], alone, atol=1e-5, rtol=1e-4)


def test_merged_lora_gives_what_the_adapters_gave():
    generator = make_generator()
    given = inputs()
    before = generator(**given)
    add_lora(generator, LoRAConfig(rank=4, alpha=8.0))
    torch.testing.assert_close(generator(**given), before)
    adapters = [value for name, value in generator.backbone.named_parameters() if "lora_B" in name]
    assert adapters
    for value in adapters:
        torch.nn.init.normal_(value, std=0.1)
    adapted = generator(**given)
    assert (adapted - before).abs().max() > 1e-3
    merge_lora(generator)
    assert not any("lora" in name for name, _ in generator.named_parameters())
    torch.testing.assert_close(generator(**given), adapted, atol=1e-4, rtol=1e-3)
