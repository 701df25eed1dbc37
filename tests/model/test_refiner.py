"""The refiner draws unknown cells alone, from noise, along a straight flow."""

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.model.refiner import Refiner, RefinerConfig, output_scales


def given(seed: int = 0, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """A draft, known cells (about half), geometry and noise of 8 x 8 cells."""
    rng = torch.Generator().manual_seed(seed)
    shape = (batch, 1, 4, 8, 8)
    return (
        torch.randn(shape, generator=rng),
        torch.rand(batch, 1, 8, 8, generator=rng) < 0.5,
        torch.randn(batch, 6, 8, 8, generator=rng),
        torch.randn(shape, generator=rng),
    )


def refiner() -> Refiner:
    torch.manual_seed(0)
    made = Refiner(RefinerConfig(4, (8, 12), 1))
    torch.nn.init.normal_(made.last.weight, std=0.1)
    return made.requires_grad_(False)


def test_it_draws_every_unknown_cell_and_no_other():
    draft, known, *rest = given()
    same = (refiner().refine(draft, known, *rest, 2) == draft).all(dim=2)
    assert torch.equal(same, known)


def test_other_noise_draws_something_else_but_noise_in_known_cells_does_not_count():
    draft, known, geometry, noise = given()
    drawn = refiner().refine(draft, known, geometry, noise, 2)
    there = known[:, :, None].expand_as(noise)
    assert torch.equal(refiner().refine(draft, known, geometry, torch.where(there, 9.0, noise), 2), drawn)
    assert not torch.equal(refiner().refine(draft, known, geometry, torch.where(there, noise, 0.0), 2), drawn)


def test_a_view_does_not_depend_on_others_of_its_batch():
    pair = given()
    single = tuple(value[:1] for value in pair)
    torch.testing.assert_close(refiner().refine(*pair, 2)[:1], refiner().refine(*single, 2))


class Oracle(Refiner):
    """Knows what the noisy latents come from, and notes at which shares of noise it was asked."""

    def forward(self, noisy, share, draft, known, geometry):
        self.asked.append((float(share[0]), noisy))
        return torch.where(known, draft, self.truth)


def test_a_network_that_knows_the_truth_is_led_along_the_straight_flow_to_it():
    draft, known, geometry, noise = given()
    oracle = Oracle(RefinerConfig(4, (8, 12), 1))
    oracle.truth, oracle.asked = torch.randn(2, 4, 8, 8), []
    drawn = oracle.refine(draft, known, geometry, noise, 4)
    unknown = (~known).expand(2, 4, 8, 8)
    assert torch.equal(drawn[:, 0][unknown], oracle.truth[unknown])
    assert [share for share, _ in oracle.asked] == [1.0, 0.75, 0.5, 0.25]
    for share, noisy in oracle.asked:
        on_the_way = (1.0 - share) * oracle.truth + share * noise[:, 0]
        torch.testing.assert_close(noisy[unknown], on_the_way[unknown])


def test_output_scales_are_those_of_the_best_linear_guess():
    rng = torch.Generator().manual_seed(0)
    clean, noise = torch.randn(2, 200_000, generator=rng)
    for share in (0.2, 0.7, 1.0):
        noisy = (1.0 - share) * clean + share * noise
        keep, missed = output_scales(torch.tensor(share))
        assert float(keep) == pytest.approx(float((clean * noisy).mean() / noisy.square().mean()), abs=0.01)
        assert float(missed) == pytest.approx(float((clean - keep * noisy).std()), abs=0.01)


def test_without_a_pass_the_draft_stays():
    draft, *rest = given()
    assert torch.equal(refiner().refine(draft, *rest, 0), draft)


@pytest.mark.parametrize("wrong", [{"channels": 0}, {"widths": ()}, {"widths": (8, 0)}, {"blocks": 0}])
def test_bad_settings_are_named(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        RefinerConfig(**wrong)
