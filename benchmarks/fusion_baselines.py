"""What others do, restated in own code from its description: the naive chain, and the log-gradient pyramid."""

import numpy as np
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import lsmr
from torch import Tensor

from immersivedepth.geometry import pinhole, sphere
from immersivedepth.scene import Kind, Prediction


def _warp(maps: Tensor, prediction: Prediction, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """Maps [V, h, w] on the panorama [V, H, W], the distance to the border (1 in the middle), and the cosine."""
    rays = sphere.erp_rays(*size)
    out, fade, cosine = [], [], []
    for m, turn, tan in zip(maps, prediction.rig.rotation, prediction.rig.tan_half_fov, strict=True):
        xy, seen = pinhole.project_rays(rays, turn, tan)
        out.append(F.grid_sample(m[None, None], xy[None], padding_mode="border", align_corners=False)[0, 0])
        fade.append((1 - xy.abs().amax(-1)) * seen)
        cosine.append(rays @ turn[:, 2])
    return torch.stack(out), torch.stack(fade).clamp_min(0), torch.stack(cosine)


def _inverse_depth(prediction: Prediction) -> Tensor:  # [V, h, w]
    """Disparity as predicted, or 1 / depth of distances; each with unit median."""
    values = prediction.values[:, 0]
    if prediction.kinds[0] is Kind.SCALE_DISTANCE:
        upright = torch.eye(3).expand(len(values), 3, 3)
        rays = pinhole.view_rays(upright, prediction.rig.tan_half_fov, prediction.rig.resolution)
        values = rays.norm(dim=-1) / values
    return values / values.flatten(1).median(1).values[:, None, None]


def median(prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """No alignment: unit medians and a feathered mean of 1 / distance."""
    inverse, fade, cosine = _warp(_inverse_depth(prediction), prediction, size)
    inverse = (inverse.clamp_min(0.05) * cosine * fade).sum(0) / fade.sum(0)
    return 1 / inverse


def naive_chain(prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """Fit each view by least squares to what has been merged so far, the best-overlapping next, then feather."""
    with_shift = prediction.kinds[0] is Kind.AFFINE_DISPARITY
    small = (128, 256)
    maps = _inverse_depth(prediction)
    inverse, fade, cosine = _warp(maps, prediction, small)
    inverse = inverse.double() * cosine
    area = sphere.solid_angles(*small).double()
    views = len(maps)
    scale, shift = torch.ones(views, dtype=torch.float64), torch.zeros(views, dtype=torch.float64)
    total, weight, left = inverse[0] * fade[0], fade[0].double(), set(range(1, views))
    while left:
        common = {v: float((area * ((fade[v] > 0) & (weight > 0))).sum()) for v in sorted(left)}
        v = max(common, key=common.__getitem__)
        left.remove(v)
        both = (fade[v] > 0) & (weight > 0)
        root = (area * torch.minimum(fade[v], weight))[both].sqrt()
        columns = [inverse[v][both], cosine[v][both].double()][: 1 + with_shift]
        target = (total / weight.clamp_min(1e-9))[both]
        solution = torch.linalg.lstsq(torch.stack(columns, 1) * root[:, None], (target * root)[:, None]).solution[:, 0]
        scale[v] = solution[0]
        shift[v] = solution[1] if with_shift else 0.0
        total = total + (scale[v] * inverse[v] + shift[v] * cosine[v]) * fade[v]
        weight = weight + fade[v]
    aligned = maps * scale.float()[:, None, None] + shift.float()[:, None, None]
    inverse, fade, cosine = _warp(aligned, prediction, size)
    inverse = (inverse * cosine * fade).sum(0) / fade.sum(0)
    return 1 / inverse.clamp_min(float(inverse.median()) * 0.02)


def log_gradients(prediction: Prediction, size: tuple[int, int]) -> Tensor:
    """Least squares on averaged log-distance gradients and Laplacians, by LSMR from coarse to fine.

    A scale per view has no gradient in log distance, so it needs no unknown; a shift cannot be expressed and is
    ignored. All views weigh the same.
    """
    inverse = _inverse_depth(prediction)
    if prediction.kinds[0] is Kind.AFFINE_DISPARITY:
        inverse = inverse - inverse.flatten(1).amin(1).clamp(max=0)[:, None, None]
        inverse = inverse + 0.05
    levels = [size]
    while max(levels[-1]) > 256:
        levels.append((levels[-1][0] // 2, levels[-1][1] // 2))
    x = None
    for height, width in reversed(levels):
        warped, fade, cosine = _warp(inverse, prediction, (height, width))
        log = -(warped * cosine).clamp_min(1e-9).log().double()
        start = None
        if x is not None:
            grown = sphere.pad_erp(x[None, None], 1)[0]
            grown = F.interpolate(grown[None], scale_factor=2, mode="bilinear", align_corners=False)
            start = grown[0, 0, 2:-2, 2:-2].numpy().reshape(-1)
        x = _merge_gradients(log, fade > 0, start)
    assert x is not None
    return x.exp()


def _merge_gradients(log: Tensor, seen: Tensor, start: np.ndarray | None) -> Tensor:
    _, height, width = log.shape
    n = height * width
    index = np.arange(n).reshape(height, width)

    def mean(values: Tensor, ok: Tensor) -> tuple[np.ndarray, np.ndarray]:
        count = ok.sum(0)
        return ((values * ok).sum(0) / count.clamp_min(1)).numpy(), (count > 0).numpy()

    right, right_ok = mean(log.roll(-1, 2) - log, seen & seen.roll(-1, 2))
    down, down_ok = mean(log[:, 1:] - log[:, :-1], seen[:, 1:] & seen[:, :-1])
    tall = torch.cat([log[:, :1], log, log[:, -1:]], 1)
    tall_seen = torch.cat([seen[:, :1], seen, seen[:, -1:]], 1)
    around = log.roll(1, 2) + log.roll(-1, 2) + tall[:, :-2] + tall[:, 2:]
    around_seen = seen & seen.roll(1, 2) & seen.roll(-1, 2) & tall_seen[:, :-2] & tall_seen[:, 2:]
    bump, bump_ok = mean(around - 4 * log, around_seen)

    def differences(one: np.ndarray, other: np.ndarray) -> sp.csr_matrix:
        m = one.size
        rows = np.arange(m)
        data = np.concatenate([np.ones(m), -np.ones(m)])
        return sp.csr_matrix((data, (np.r_[rows, rows], np.r_[one.ravel(), other.ravel()])), shape=(m, n))

    a = differences(np.roll(index, -1, 1), index)
    b = differences(index[1:], index[:-1])
    above, below = np.r_[index[:1], index[:-1]], np.r_[index[1:], index[-1:]]
    c = differences(np.roll(index, 1, 1), index) + differences(np.roll(index, -1, 1), index)
    c = c + differences(above, index) + differences(below, index)
    keep = [right_ok.ravel(), down_ok.ravel(), bump_ok.ravel()]
    matrix = sp.vstack([m[k] for m, k in zip((a, b, c), keep, strict=True)]).tocsr()
    target = np.concatenate([t.ravel()[k] for t, k in zip((right, down, bump), keep, strict=True)])
    return torch.from_numpy(lsmr(matrix, target, atol=1e-5, btol=1e-5, x0=start)[0].reshape(height, width))
