"""Slow or plain versions of the z-buffer to test the fast one against."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry.cameras import project
from mirage_sim.memory.occlusion import BESIDE, FARTHER, SAME_RAY
from mirage_sim.memory.scatter import NEAREST, SCALE_WEIGHT


def plain_splat(
    positions: Tensor,  # [B, N, 3]
    valid: Tensor,  # [B, N]
    footprint: Tensor,  # [B, N]
    view_dir: Tensor,  # [B, N, 3]
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    hw: tuple[int, int],
    depth_tolerance: float = 0.05,
    lasting: bool = False,
) -> dict[str, np.ndarray]:
    """Splat with nothing but loops over float32 scalars, without closing gaps."""
    f = np.float32
    worlds, frames = cam2world.shape[:2]
    shape = (worlds, frames, *hw)
    out = {
        "index": np.full(shape, -1, np.int64),
        "mask": np.zeros(shape, bool),
        "depth": np.zeros(shape, f),
        "offset": np.zeros((worlds, frames, 2, *hw), f),
        "log_scale": np.zeros(shape, f),
        "view_cos": np.zeros(shape, f),
    }
    points, sizes, directions = (part.numpy() for part in (positions, footprint, view_dir))
    poses, matrices = cam2world.numpy(), intrinsics.numpy()
    for b in range(worlds):
        for t in range(frames):
            pose, matrix = poses[b, t], matrices[b, t]
            right, down, forward = pose[:3, 0], pose[:3, 1], pose[:3, 2]
            row_u = matrix[0, 0] * right + matrix[0, 1] * down
            row_v = matrix[1, 1] * down
            focal = np.sqrt(matrix[0, 0] * matrix[1, 1])
            cells: dict[tuple[int, int], list[tuple[int, np.float32, np.float32, np.float32]]] = {}
            for n in range(points.shape[1]):
                if not valid[b, n]:
                    continue
                delta = points[b, n] - pose[:3, 3]
                depth, u, v = (
                    delta[0] * row[0] + delta[1] * row[1] + delta[2] * row[2]
                    for row in (forward, row_u, row_v)
                )
                if not depth >= f(NEAREST):
                    continue
                u, v = u / depth + matrix[0, 2], v / depth + matrix[1, 2]
                if 0 <= u < hw[1] and 0 <= v < hw[0]:
                    cells.setdefault((math.floor(v), math.floor(u)), []).append((n, depth, u, v))
            certain = set()
            for cell, hits in cells.items():
                direct = []
                for hit in hits:
                    now, then = points[b, hit[0]] - pose[:3, 3], directions[b, hit[0]]
                    square = now[0] * now[0] + now[1] * now[1] + now[2] * now[2]
                    along = now[0] * then[0] + now[1] * then[1] + now[2] * then[2]
                    across = [now[i - 2] * then[i - 1] - now[i - 1] * then[i - 2] for i in range(3)]
                    aside = across[0] * across[0] + across[1] * across[1] + across[2] * across[2]
                    same = along > 0 and aside <= min(f(SAME_RAY * SAME_RAY) * square, f(BESIDE * BESIDE))
                    if same and hit[1] <= f(FARTHER) * (sizes[b, hit[0]] * focal):
                        direct.append(hit)
                cells[cell] = direct or hits
                if direct:
                    certain.add(cell)
            front = {cell: min(hit[1] for hit in hits) for cell, hits in cells.items()}
            for (row, column), hits in cells.items():
                nearest = front[row, column]
                slope = f(0)
                for pair in (((0, -1), (0, 1)), ((-1, 0), (1, 0))):
                    sides = [front.get((row + dv, column + du)) for dv, du in pair]
                    slope += min((abs(side - nearest) for side in sides if side is not None), default=f(0))
                steepest = f(6 * depth_tolerance) * nearest
                limit = nearest + (f(depth_tolerance) * max(nearest, f(1)) + min(slope, steepest))
                best: dict[bool, tuple[int, int]] = {}  # of entries finer than asked for, and of the others
                for n, depth, u, v in hits:
                    if depth > limit and (row, column) not in certain:
                        continue
                    du, dv = u - np.floor(u) - f(0.5), v - np.floor(v) - f(0.5)
                    ratio = sizes[b, n] * focal / depth
                    log2 = f(ratio.view(np.int32)) * f(2.0**-23) - f(127)
                    octaves = max(abs(log2) - f(0.25), f(0)) if lasting else abs(log2)
                    score = du * du + dv * dv + f(math.log(2) * SCALE_WEIGHT) * octaves
                    if lasting:
                        score = np.floor(score * f(2)) / f(2)
                    finer = lasting and bool(ratio < f(0.95))
                    best[finer] = min((int(score * f(2**20)), n), best.get(finer, (2**40, 0)))
                shown = min((n for _, n in best.values()), default=-1)
                for n, depth, u, v in hits:
                    if n == shown:
                        du, dv = u - np.floor(u) - f(0.5), v - np.floor(v) - f(0.5)
                        now = points[b, n] - pose[:3, 3]
                        length = np.sqrt(now[0] * now[0] + now[1] * now[1] + now[2] * now[2])
                        then = directions[b, n]
                        place = (b, t, row, column)
                        out["index"][place], out["mask"][place], out["depth"][place] = n, True, depth
                        out["offset"][b, t, :, row, column] = du, dv
                        out["log_scale"][place] = f(np.log(float(sizes[b, n]) * float(focal) / float(depth)))
                        out["view_cos"][place] = (
                            then[0] * now[0] + then[1] * now[1] + then[2] * now[2]
                        ) / length
    return out


def sort_and_scatter(
    features: Tensor,  # [N, C]
    positions: Tensor,  # [N, 3]
    cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    hw: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Read the straightforward way: sort all points from far to near and let later ones overwrite.

    Returns:
        `(latents [C, h, w], mask [h, w], depth [h, w])`.
    """
    uv, depth = project(positions, cam2world, intrinsics)  # [N, 2], [N]
    column, row = uv.floor().long().unbind(-1)
    inside = (depth >= NEAREST) & (column >= 0) & (column < hw[1]) & (row >= 0) & (row < hw[0])
    kept = inside.nonzero().squeeze(1)
    order = kept[depth[kept].argsort(descending=True)]
    cell = row[order] * hw[1] + column[order]
    # each cell's last writer, made explicit because overlapping assignment has no defined order
    last = torch.full((hw[0] * hw[1],), -1, dtype=torch.int64)
    last.scatter_reduce_(0, cell, torch.arange(len(order)), "amax")
    mask = last >= 0
    image, near = features.new_zeros(len(last), features.shape[1]), depth.new_zeros(len(last))
    winner = order[last[mask]]
    image[mask], near[mask] = features[winner], depth[winner]
    return image.T.reshape(-1, *hw), mask.reshape(hw), near.reshape(hw)
