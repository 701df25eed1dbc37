"""Loop scores on hand-made rollouts whose consistency and accuracy are known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mirage_sim.evaluation.config import LoopConfig, WorldsConfig
from mirage_sim.evaluation.loop import (
    accuracy_steps,
    decoded_places,
    evaluate_loop,
    flipped_psnr,
    visit_scores,
)
from mirage_sim.evaluation.report import plain
from mirage_sim.evaluation.rollout import Rollout, roll_out, with_sampling
from mirage_sim.evaluation.worlds import Path, TestWorld, make_test_worlds
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics
from mirage_sim.model.config import SamplerConfig
from tests.models import tiny_world_model

SIZE = 16
STEPS = 8


@pytest.fixture
def still_world() -> TestWorld:
    """A camera at rest before a textured wall."""
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8)
    poses = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), 0.0, 0.0).float().expand(STEPS + 1, 4, 4)
    depth = torch.full((STEPS + 1, SIZE, SIZE), 2.0)
    path = Path(poses, np.stack([picture] * (STEPS + 1)), depth)
    return TestWorld(0, 0, 0, make_intrinsics(SIZE, SIZE, 75.0), {"out": path})


def rollout_of(frames: np.ndarray, known: float = 1.0) -> Rollout:
    cells = torch.rand(1, len(frames), 2, 2, generator=torch.Generator().manual_seed(0)) < known
    return Rollout(frames[None], torch.zeros(1, len(frames), 4, 2, 2), cells, torch.tensor([7]))


def test_a_perfect_world_reaches_the_cap(still_world: TestWorld) -> None:
    frames = np.stack([still_world.paths["out"].frames[0]] * (2 * STEPS + 1))
    scores = visit_scores(still_world, "out", rollout_of(frames), 0)
    for name in ("self_psnr", "self_psnr_half", "flip_psnr", "closure_psnr", "psnr_1", "seen_psnr_8"):
        assert scores[name] == pytest.approx(60.0), name
    assert scores["self_ssim"] == pytest.approx(1.0, abs=1e-5)
    assert scores["coverage"] == 1.0
    assert scores["entries"] == 7.0


def test_a_wrong_but_stable_world_is_consistent_and_inaccurate(still_world: TestWorld) -> None:
    """An offset of 51 of 255 everywhere is 0.4 of a range of 2, hence 14 dB."""
    frames = np.stack([still_world.paths["out"].frames[0] + np.uint8(51)] * (2 * STEPS + 1))
    scores = visit_scores(still_world, "out", rollout_of(frames), 0)
    assert scores["self_psnr"] == pytest.approx(60.0)
    assert scores["closure_psnr"] == pytest.approx(13.979, abs=0.01)
    assert scores["seen_psnr_8"] == pytest.approx(13.979, abs=0.01)


def test_a_world_that_changes_after_the_turn_is_accurate_and_inconsistent(still_world: TestWorld) -> None:
    frames = np.stack([still_world.paths["out"].frames[0]] * (2 * STEPS + 1))
    frames[STEPS + 1 :] += np.uint8(51)
    scores = visit_scores(still_world, "out", rollout_of(frames), 0)
    assert scores["seen_psnr_8"] == pytest.approx(60.0)
    for name in ("self_psnr", "flip_psnr", "closure_psnr"):
        assert scores[name] == pytest.approx(13.979, abs=0.01), name


def test_each_pose_is_compared_with_its_own_second_visit(still_world: TestWorld) -> None:
    """Pictures that follow the pose, there and back, are consistent though all of them differ."""
    rng = np.random.default_rng(1)
    out = rng.integers(0, 255, (STEPS + 1, SIZE, SIZE, 3), dtype=np.uint8)
    frames = np.concatenate([out, out[-2::-1]])
    scores = visit_scores(still_world, "out", rollout_of(frames), 0)
    assert scores["self_psnr"] == pytest.approx(60.0)
    assert scores["flip_psnr"] == pytest.approx(60.0)
    again = np.concatenate([out, out[:-1]])  # the same pictures at other poses
    assert visit_scores(still_world, "out", rollout_of(again), 0)["self_psnr"] < 15


def test_pixels_that_the_first_frame_did_not_see_do_not_count(still_world: TestWorld) -> None:
    path = still_world.paths["out"]
    depth = path.depth.clone()
    depth[1:, :, 8:] = 3.0  # the right half is another surface from the first step on
    world = TestWorld(0, 0, 0, still_world.intrinsics, {"out": Path(path.cam2world, path.frames, depth)})
    frames = np.stack([path.frames[0]] * (2 * STEPS + 1))
    frames[1:, :, 8:] += np.uint8(51)
    scores = visit_scores(world, "out", rollout_of(frames), 0)
    assert scores["seen_psnr_1"] == pytest.approx(60.0)
    assert scores["psnr_1"] == pytest.approx(13.979 + 3.01, abs=0.02)


def test_accuracy_where_nothing_was_seen_is_unknown(still_world: TestWorld) -> None:
    path = still_world.paths["out"]
    depth = path.depth.clone()
    depth[1:] = 9.0
    world = TestWorld(0, 0, 0, still_world.intrinsics, {"out": Path(path.cam2world, path.frames, depth)})
    scores = visit_scores(world, "out", rollout_of(np.stack([path.frames[0]] * (2 * STEPS + 1))), 0)
    assert np.isnan(scores["seen_psnr_8"])
    assert plain(scores)["seen_psnr_8"] is None


def test_flipped_comparison_pools_the_error_of_the_whole_path() -> None:
    video = torch.zeros(5, 3, 4, 4)
    video[3] = 0.4  # one of two pairs is off by 0.4
    assert flipped_psnr(video) == pytest.approx(float(10 * np.log10(4 / (0.16 / 2))), abs=1e-4)


def test_comparing_fewer_poses_needs_only_their_frames(still_world: TestWorld) -> None:
    frames = np.stack([still_world.paths["out"].frames[0]] * (2 * STEPS + 1))
    whole = visit_scores(still_world, "out", rollout_of(frames), 0)
    places = decoded_places(STEPS + 1, 3)
    assert places == {0, 1, 3, 4, 6, 8, 10, 12, 13, 15, 16}
    frames[[place for place in range(2 * STEPS + 1) if place not in places]] = 0
    assert visit_scores(still_world, "out", rollout_of(frames), 0, every=3) == whole


def test_accuracy_steps_end_with_the_last_one() -> None:
    assert accuracy_steps(33) == [1, 8, 16, 32]
    assert accuracy_steps(19) == [1, 8, 16, 18]
    assert accuracy_steps(2) == [1]


def test_rollout_starts_alike_with_memory_on_and_off_and_never_knows_without() -> None:
    model = tiny_world_model()
    worlds = list(make_test_worlds(WorldsConfig(worlds=2, steps=3), model.intrinsics(), (32, 32), ("out",)))
    on, off = (roll_out(model, worlds, "out", memory) for memory in (True, False))
    assert on.frames.shape == (2, 7, 32, 32, 3)
    np.testing.assert_array_equal(on.frames[:, 0], off.frames[:, 0])
    assert on.known[:, 1:].any()
    assert not off.known.any()
    assert (on.entries > 0).all()
    some = roll_out(model, worlds, "out", True, decode=[6])
    np.testing.assert_array_equal(some.frames[:, 6], on.frames[:, 6])
    assert not some.frames[:, 1:6].any()
    assert torch.equal(some.latents, on.latents)


def test_longer_segments_show_the_same_poses() -> None:
    model = tiny_world_model(segment_length=2)
    worlds = list(make_test_worlds(WorldsConfig(worlds=1, steps=2), model.intrinsics(), (32, 32), ("out",)))
    rollout = roll_out(model, worlds, "out", True)
    assert rollout.frames.shape[:2] == (1, 5)
    assert rollout.frames[:, 1:].any(axis=(2, 3, 4)).all()
    odd = roll_out(model, worlds, "out", True, back=False)
    assert odd.latents.shape[:2] == (1, 3)


def test_the_result_does_not_depend_on_the_batch_nor_on_the_run() -> None:
    model = tiny_world_model()
    worlds = WorldsConfig(worlds=3, steps=2, yaw_step_degrees=45.0)
    results = [plain(evaluate_loop(model, LoopConfig(worlds, batch=batch))) for batch in (1, 2, 2)]
    assert results[1] == results[2]
    assert results[0]["paths"]["out"]["on"]["entries"] == results[1]["paths"]["out"]["on"]["entries"]
    for path in ("out", "yaw"):
        for name, figure in results[0]["paths"][path]["on"].items():
            assert figure["mean"] == pytest.approx(results[1]["paths"][path]["on"][name]["mean"], abs=0.05)


def test_sampling_changes_leave_the_model_alone() -> None:
    model = tiny_world_model()
    other = with_sampling(model, 2, 0.1, references=2, extras=False, refine_steps=0, glimpses=3)
    assert other.config.sampler == SamplerConfig(steps=2, known_fraction=0.1, refine_steps=0)
    assert (other.config.references, other.config.extras, other.config.memory.glimpses) == (2, False, 3)
    assert (model.config.sampler.steps, model.config.extras) == (1, True)
    assert with_sampling(model).config == model.config
