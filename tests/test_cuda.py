"""What must hold on a GPU: the same read, the same worlds step by step, training that runs."""

import gymnasium as gym
import numpy as np
import pytest
import torch

import mirage_sim  # noqa: F401  (registers the environment)
from mirage_sim.checkpoints import load_world_model
from mirage_sim.evaluation.whole_size import Room, random_generator, walk
from mirage_sim.geometry import from_yaw_pitch, rescale_intrinsics, yaw_sweep
from mirage_sim.memory import SpatialMemory
from mirage_sim.model.full_size import full_size_config
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.bench import RandomClips
from mirage_sim.training.config import FullSizeConfig, StageConfig, TrainBenchConfig
from mirage_sim.training.full_size import DepthIsKnown, prepare, sequence_loss
from mirage_sim.training.generator import train_generator
from mirage_sim.training.samples import LatentClips
from mirage_sim.training.sequences import Sequences
from mirage_sim.world import World
from tests.evaluation.test_size_bench import SHAPE, small_codec
from tests.full_size import write_full_size
from tests.models import tiny_world_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


def turn(steps: int) -> torch.Tensor:
    return yaw_sweep(from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), torch.tensor(0.0)), 60.0, steps)


def test_a_read_on_the_gpu_is_the_read_on_the_cpu():
    model = tiny_world_model()
    intrinsics = rescale_intrinsics(model.intrinsics(), 1 / 8)
    poses = turn(6)
    rng = torch.Generator().manual_seed(0)
    reads = []
    latents, depth = (
        torch.randn(1, 6, 4, 16, 16, generator=rng),
        2.0 + torch.rand(1, 6, 1, 1, generator=rng).expand(1, 6, 16, 16),
    )
    for device in ("cpu", "cuda", "cuda"):
        memory = SpatialMemory(model.config.memory, 1, device)
        for view in range(6):
            memory.write(
                latents[:, view : view + 1].to(device),
                depth[:, view : view + 1].to(device),
                poses[None, view : view + 1].to(device),
                intrinsics.expand(1, 1, 3, 3).to(device),
            )
        reads.append(
            memory.read(poses[None, 3:5].to(device), intrinsics.expand(1, 2, 3, 3).to(device), (16, 16))
        )
    for first, second in zip(vars(reads[1]).values(), vars(reads[2]).values(), strict=True):
        assert torch.equal(first, second)
    alike = (reads[0].mask == reads[1].mask.cpu()).float().mean()
    assert float(alike) > 0.99
    same = (reads[0].latents - reads[1].latents.cpu()).abs().amax(dim=2)[reads[0].mask] < 1e-3
    assert float(same.float().mean()) > 0.97


def test_an_environment_walks_on_the_gpu_and_finds_back():
    env = gym.make("Mirage/Explore-v0", device="cuda", action_mode="discrete", observations=("rgb", "depth"))
    first, _ = env.reset(seed=0)
    frames = [env.step(action)[0]["rgb"] for action in (1, 1, 2, 2)]
    env.unwrapped.reset(seed=0)
    again = [env.step(action)[0]["rgb"] for action in (1, 1, 2, 2)]
    assert all(np.array_equal(a, b) for a, b in zip(frames, again, strict=True))
    apart = np.abs(frames[-1].astype(float) - first["rgb"].astype(float)).mean()
    assert apart < 12.0
    assert first["rgb"].std() > 10.0


def full_size_walk(folder, **options):
    """Two steps of a tiny full-size model on the GPU."""
    settings = {"height": 64, "width": 96, "segment_length": 2, "prompt_tokens": 6}
    model = load_world_model(folder, "cuda", depth=Room(), **options, **settings)
    way, world = walk(4).cuda(), World(model)
    picture = np.random.default_rng(0).integers(0, 256, (1, 64, 96, 3), dtype=np.uint8)
    model.estimator.cameras = way[:1]
    world.reset(picture, way[:1], seeds=[0])
    frames = []
    for first in (1, 3):
        model.estimator.cameras = way[first : first + 2]
        frames.append(world.step(way[None, first : first + 2]).frames)
    return model, np.stack(frames).astype(float)


@pytest.mark.parametrize("kind", ["networks", "blocks"])
def test_weights_that_wait_in_the_host_memory_make_the_same_pictures(tmp_path, kind):
    folder = write_full_size(tmp_path)
    _, plain = full_size_walk(folder)
    model, waited = full_size_walk(folder, offload=kind)
    assert np.array_equal(plain, waited)
    assert model.generator.backbone.blocks[0].attn1.to_q.weight.device.type == "cpu"


def test_compiled_blocks_make_nearly_the_same_pictures(tmp_path):
    folder = write_full_size(tmp_path)
    (_, plain), (_, compiled) = full_size_walk(folder), full_size_walk(folder, compiled=True)
    assert np.abs(plain - compiled).mean() < 2.0


def test_a_stage_trains_on_the_gpu(tmp_path):
    model = tiny_world_model().to("cuda")
    rng = torch.Generator().manual_seed(0)
    clips = LatentClips(
        torch.randn(3, 12, 4, 4, 4, generator=rng).half(),
        1.0 + 3.0 * torch.rand(3, 12, 4, 4, generator=rng),
        turn(11).expand(3, -1, -1, -1),
        rescale_intrinsics(model.intrinsics(), 1 / 8).cpu(),
    ).to(torch.device("cuda"))
    before = model.generator.backbone.proj_out.weight.clone()
    train_generator("finetune", model, clips, clips, StageConfig(steps=3, batch_size=2, warmup=1), tmp_path)
    assert not torch.equal(before, model.generator.backbone.proj_out.weight)


@pytest.mark.parametrize("stage", ["branch", "lora"])
def test_full_size_trains_in_bf16_on_the_gpu(stage):
    generator = random_generator(SHAPE, torch.device("cuda"))
    codec = small_codec().cuda()
    sizes = {"height": 64, "width": 96, "segment_length": 2, "prompt_tokens": 6}
    model = WorldModel(full_size_config(SHAPE, **sizes), codec, generator, DepthIsKnown())
    prepare(stage, model, FullSizeConfig())
    config = TrainBenchConfig(size=(64, 96), generator=SHAPE)
    drawn = Sequences(model, RandomClips(config, codec.channels, codec.spatial_stride, codec.temporal_stride))
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    before = [parameter.detach().clone() for parameter in trained]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, fused=True)
    for step in range(2):
        rng = np.random.default_rng(step)
        with torch.autocast("cuda", dtype=torch.bfloat16, cache_enabled=False):
            loss = sequence_loss(model, generator, drawn.draw(1, rng), rng)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        assert bool(loss.isfinite())
    assert all(not torch.equal(old, new) for old, new in zip(before, trained, strict=True))
