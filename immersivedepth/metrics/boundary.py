"""Where depth jumps: precision, recall and distance of edges (Hu et al., Koch et al., Pano3D), and ratios (MoGe).

Maps are [H, W] in metres. Panoramas go on around the seam; at the poles the last row is repeated.
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

THRESHOLDS = (0.25, 0.5, 1.0)  # metres of the Sobel response
REACH = 10.0  # pixels: what is farther from an edge counts as this far
_RATIOS = torch.linspace(0.05, 0.25, 10, dtype=torch.float64).tolist()


def sobel(values: Tensor) -> Tensor:  # [H, W] -> [H, W]
    """Length of the gradient by Sobel's kernels, not normalised."""
    kernel = values.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    padded = F.pad(F.pad(values[None, None], (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")
    both = F.conv2d(padded, torch.stack([kernel, kernel.T])[:, None])[0]
    return both[0].hypot(both[1])


def edges(values: Tensor, valid: Tensor, threshold: float) -> Tensor:  # [H, W] -> [H, W], bool
    """Where the gradient is above a threshold; nothing beside what is not valid."""
    holes = F.pad(F.pad((~valid).float()[None, None], (1, 1, 0, 0), mode="circular"), (0, 0, 1, 1), mode="replicate")
    clear = F.max_pool2d(holes, 3, 1)[0, 0] == 0
    return (sobel(torch.where(valid, values, 0.0)) > threshold) & clear


def precision_recall(predicted: Tensor, true: Tensor) -> tuple[float, float]:  # [H, W] bool
    """Shares of predicted edges that are true, and of true edges that are found; both 1 where there are no true ones.

    Precision is 0 where edges are to be found and none is predicted.
    """
    if not true.any():
        return 1.0, 1.0
    both = float((predicted & true).sum())
    return both / max(float(predicted.sum()), 1.0), both / float(true.sum())


def edge_distances(predicted: Tensor, true: Tensor) -> tuple[float, float]:  # [H, W] bool
    """Accuracy and completeness in pixels: from predicted to true edges, and both ways with distances cut at REACH.

    Accuracy leaves out predicted edges that have no true one within REACH; both are REACH where nothing is left.
    """
    to_true, to_predicted = _distance(true), _distance(predicted)
    near = predicted.numpy() & (to_true < REACH)
    if not near.any():
        return REACH, REACH
    accuracy = float(to_true[near].mean())
    both = np.minimum(to_true[predicted.numpy()], REACH).sum() + np.minimum(to_predicted[true.numpy()], REACH).sum()
    return accuracy, float(both / (int(predicted.sum()) + int(true.sum())))


def pano3d(prediction: Tensor, target: Tensor, valid: Tensor) -> dict[str, float]:  # [H, W] each
    """Edge precision and recall at three thresholds, and the edges' distances at the lowest."""
    out: dict[str, float] = {}
    for threshold in THRESHOLDS:
        found, true = edges(prediction, valid, threshold), edges(target, valid, threshold)
        precision, recall = precision_recall(found, true)
        out |= {f"precision_{threshold:g}": precision, f"recall_{threshold:g}": recall}
        both = precision + recall
        out[f"boundary_f_{threshold:g}"] = 2 * precision * recall / both if both else 0.0
        if threshold == THRESHOLDS[0]:
            out["edge_accuracy"], out["edge_completeness"] = edge_distances(found, true)
    return out


def moge(prediction: Tensor, target: Tensor, valid: Tensor, radius: int = 1) -> float:  # [H, W] each
    """F of pairs of near pixels one of which is more than 1 + t times as far, mean over t = 0.05 to 0.25 weighted by t.

    Pairs reach no farther than the picture: this definition does not know the seam.
    """
    true_both, true_all, found_all = (np.zeros(len(_RATIOS)) for _ in range(3))
    height, width = valid.shape
    inner = np.s_[radius : height - radius, radius : width - radius]
    for dy in range(-radius, radius + 1):
        for dx in range(-radius, radius + 1):
            if not 0 < dy * dy + dx * dx <= radius * radius:
                continue
            there = np.s_[radius + dy : height - radius + dy, radius + dx : width - radius + dx]
            pair = valid[inner] & valid[there]
            found, true = prediction[there] / prediction[inner], target[there] / target[inner]
            for i, t in enumerate(_RATIOS):
                found_edge, true_edge = (found > 1 + t) & pair, (true > 1 + t) & pair
                true_both[i] += int((found_edge & true_edge).sum())
                true_all[i] += int(true_edge.sum())
                found_all[i] += int(found_edge.sum())
    total = np.maximum(true_all + found_all, 1)  # 2 / (1 / precision + 1 / recall) = 2 both / (true + found)
    return float((np.array(_RATIOS) * 2 * true_both / total).sum() / math.fsum(_RATIOS))


def _distance(edge: Tensor) -> np.ndarray:
    """Pixels to the nearest edge, in the plane of the picture."""
    from scipy import ndimage

    if not edge.any():
        return np.full(tuple(edge.shape), np.inf)
    return np.asarray(ndimage.distance_transform_edt(~edge.numpy()))
