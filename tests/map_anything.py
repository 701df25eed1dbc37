"""MapAnything: a stand-in with the interface of its package, and a tiny model of the package's own class."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file, save_model

from mirage_sim.perception.map_anything import _nothing_fetched
from tests.full_size import seeded

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]
PATCH = 14
DINO = {"encoder_str": "dinov2", "name": "dinov2", "data_norm_type": "dinov2", "uses_torch_hub": True}
ADAPTOR = "raydirs+depth+pose+confidence+mask"
KEYS = {"img", "data_norm_type", "intrinsics", "camera_poses", "depth_z", "ray_directions", "is_metric_scale"}


class MapAnything(torch.nn.Module):
    """Says depth 1 to 5 m by how red a picture is, and that what is very blue is not clear."""

    def __init__(self, name: str, encoder_config: dict[str, Any], **others: Any) -> None:
        super().__init__()
        assert "somewhere.pth" not in json.dumps([encoder_config, others]), "weights would be unpickled"
        model = torch.hub.load("facebookresearch/dinov2", encoder_config["hub"], force_reload=False)
        self.encoder = SimpleNamespace(patch_size=PATCH, data_norm_type="dinov2")
        self.span = torch.nn.Parameter(torch.zeros(1))
        self.image_encoder, self.views = model, []

    @classmethod
    def from_pretrained(cls, folder, *, local_files_only=False, strict=False, **given):
        assert local_files_only
        config = json.loads((Path(folder) / "config.json").read_text())
        model = cls(**{**config, **given})
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"), strict=strict)
        return model

    @torch.inference_mode()
    def infer(
        self,
        views: list[dict[str, Any]],
        memory_efficient_inference: bool = True,
        minibatch_size: int | None = None,
        use_amp: bool = True,
        apply_mask: bool = True,
        mask_edges: bool = True,
    ) -> list[dict[str, torch.Tensor]]:
        assert not any((use_amp, apply_mask, mask_edges))
        self.views, said = views, []
        for view in views:
            assert {"img", "data_norm_type"} <= view.keys() <= KEYS
            assert view["data_norm_type"][0] == "dinov2"  # of a list: one for all of a batch
            count, channels, rows, columns = view["img"].shape
            assert (channels, rows % PATCH, columns % PATCH) == (3, 0, 0)
            assert view["intrinsics"].shape == (count, 3, 3)
            red, _, blue = (view["img"] * STD + MEAN).unbind(dim=1)  # [B, H, W] each
            depth = 1.0 + self.span * red
            said.append({"depth_z": depth[..., None], "non_ambiguous_mask": blue < 0.9})
        return said


def install_stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the stand-in where the package would be."""
    inside = ("", ".models", ".models.external", ".models.external.dinov2", ".models.external.dinov2.hub")
    modules = {f"mapanything{name}": ModuleType(f"mapanything{name}") for name in inside}
    modules["mapanything.models"].MapAnything = MapAnything
    encoders = SimpleNamespace(dinov2_vits14=lambda *, pretrained: torch.nn.Linear(2, 2, bias=pretrained))
    modules["mapanything.models.external.dinov2.hub"].backbones = encoders
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def write_stand_in(folder: Path, **changes: Any) -> Path:
    """A folder as a published model's, for the stand-in."""
    encoder = DINO | {"hub": "dinov2_vits14", "pretrained_checkpoint_path": "somewhere.pth"}
    config = {
        "name": "mapanything",
        "encoder_config": encoder | changes,
        "info_sharing_config": {"layers": [{"pretrained_checkpoint_path": "somewhere.pth"}]},
        "pred_head_config": {"adaptor_type": changes.get("adaptor_type", ADAPTOR)},
        "geometric_input_config": {},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    weights = {"span": torch.full((1,), 4.0), "image_encoder.weight": torch.zeros(2, 2)}
    save_file(weights, folder / "model.safetensors")
    return folder


def write_real(folder: Path) -> Path:
    """A tiny model of the package's own class, with random weights that look forward."""
    from mapanything.models import MapAnything as Real
    from mapanything.models.external.dinov2.hub import backbones

    config = _tiny_config()
    with _nothing_fetched(backbones):
        model = seeded(lambda: Real(**copy.deepcopy(config)))  # it writes into what it is given
    last = [module for module in model.dense_head.modules() if isinstance(module, torch.nn.Conv2d)][-1]
    last.weight.data *= 20.0
    last.bias.data[:] = torch.tensor([0.0, 0.0, 50.0, 1.0, 0.0, 5.0])  # a ray, log depth, confidence, mask
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_model(model, str(folder / "model.safetensors"))
    return folder


def _tiny_config() -> dict[str, Any]:
    def bounds(*names: str) -> dict[str, float]:
        ends = {"vmin": -torch.inf, "vmax": torch.inf}
        return {f"{name}_{end}": value for name in names for end, value in ends.items()}

    def encoder(channels: int, kind: str, *dims: int) -> dict[str, Any]:
        return {"name": kind, "in_chans": channels, "encoder_str": kind, "intermediate_dims": list(dims)}

    transformer = {
        "name": "tiny",
        "indices": [0, 1],
        "norm_intermediate": True,
        "size": "tiny",
        "depth": 4,
        "distinguish_ref_and_non_ref_views": True,
        "dim": 16,
        "num_heads": 2,
        "mlp_ratio": 2,
        "qkv_bias": True,
        "init_values": 1e-5,
    }
    dense = {
        "name": ADAPTOR,
        "ray_directions_mode": "linear",
        "ray_directions_normalize_to_unit_sphere": True,
        "ray_directions_normalize_to_unit_image_plane": False,
        "ray_directions_clamp_min_of_z_dir": False,
        "ray_directions_z_dir_min": -torch.inf,
        "depth_mode": "exp",
        "confidence_type": "exp",
        **bounds("ray_directions", "depth", "confidence"),
        "depth_vmin": 0.0,
        "confidence_vmin": 1.0,
    }
    pose = {"name": ADAPTOR, "cam_trans_mode": "linear", "quaternions_mode": "linear"}
    pose |= {"quaternions_normalize": True, **bounds("cam_trans", "quaternions")}
    chances = ("overall", "ray_dirs", "depth", "cam", "sparse_depth", "depth_scale_norm_all")
    return {
        "name": "mapanything",
        "encoder_config": DINO | {"size": "small", "keep_first_n_layers": 1},
        "info_sharing_config": {
            "model_type": "alternating_attention",
            "model_return_type": "intermediate_features",
            "custom_positional_encoding": None,
            "module_args": transformer,
        },
        "pred_head_config": {
            "type": "dpt+pose",
            "feature_head": {"feature_dim": 16, "hooks": [0, 1, 2, 3], "layer_dims": [8] * 4},
            "regressor_head": {"output_dim": 6},
            "pose_head": {"num_resconv_block": 1, "rot_representation_dim": 4},
            "scale_head": {"output_dim": 1},
            "adaptor_type": ADAPTOR,
            "dpt_adaptor": dense,
            "pose_adaptor": pose,
            "scale_adaptor": {"name": ADAPTOR, "mode": "exp", "vmin": 1e-8, "vmax": torch.inf},
        },
        "geometric_input_config": {
            "ray_dirs_encoder_config": encoder(3, "dense_rep_encoder", 8, 8, 8) | {"apply_pe": False},
            "depth_encoder_config": encoder(1, "dense_rep_encoder", 8, 8, 8) | {"apply_pe": False},
            "cam_rot_encoder_config": encoder(4, "global_rep_encoder", 8),
            "cam_trans_encoder_config": encoder(3, "global_rep_encoder", 8),
            "scale_encoder_config": encoder(1, "global_rep_encoder", 8),
            "dropout_prob": 1,
            "sparsification_removal_percent": 0,
            **{f"{chance}_prob": 0 for chance in (*chances, "pose_scale_norm_all")},
        },
    }
