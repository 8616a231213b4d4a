"""Regions of a panorama as integer maps: connected, merged and boxed across the seam and over the poles.

Graph work runs on the CPU with SciPy; maps come back on the device they came from.
"""

import heapq
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import cKDTree
from torch import Tensor

from . import directions, sphere

_CANDIDATES = 9  # cells a pixel may belong to: its own and about one ring around it
_ROUNDS = 6  # of the clustering; cells hardly move any more


def neighbours(height: int, width: int) -> tuple[Tensor, Tensor]:  # [E], [E]
    """Flat indices of all pairs of adjacent pixels: to the right, down, and across each pole."""
    index = torch.arange(height * width).reshape(height, width)
    half = width // 2
    pairs = [
        (index, index.roll(-1, 1)),
        (index[:-1], index[1:]),
        (index[0, :half], index[0, half : 2 * half]),
        (index[-1, :half], index[-1, half : 2 * half]),
    ]
    first, second = zip(*pairs, strict=True)
    return torch.cat([x.reshape(-1) for x in first]), torch.cat([x.reshape(-1) for x in second])


def components(mask: Tensor, joined: Tensor | None = None) -> Tensor:  # [1, H, W] -> [1, H, W], int32
    """Connected parts of a mask, numbered from 1, 0 outside; `joined` may cut some of the pairs of `neighbours`."""
    height, width = mask.shape[-2:]
    first, second = neighbours(height, width)
    flat = mask.reshape(-1).cpu()
    keep = flat[first] & flat[second]
    if joined is not None:
        keep &= joined.cpu()
    labels = _connect(first[keep].numpy(), second[keep].numpy(), height * width)
    labels = np.where(flat.numpy(), labels + 1, 0)
    return _renumbered(labels).reshape(mask.shape).to(mask.device)


def parts(labels: Tensor) -> Tensor:  # [1, H, W] -> [1, H, W], int32
    """Every region split into its connected parts, numbered from 1; 0 stays 0."""
    first, second = neighbours(*labels.shape[-2:])
    flat = labels.reshape(-1).cpu()
    return components(labels > 0, flat[first] == flat[second])


def boxes(labels: Tensor) -> Tensor:  # [1, H, W] -> [N, 4], int64
    """Boxes [left, top, right, bottom), in pixels, of the regions 1..N; right may exceed the width across the seam.

    Of all boxes around the globe the narrowest is taken. A number that is missing has an empty box of zeros.
    """
    height, width = labels.shape[-2:]
    count = int(labels.max()) if labels.numel() else 0
    out = torch.zeros(count, 4, dtype=torch.int64)
    flat = labels[0].cpu().long()
    row, column = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    used = torch.zeros(count + 1, width, dtype=torch.bool)
    used[flat, column] = True
    top = torch.full((count + 1,), height).scatter_reduce_(0, flat.reshape(-1), row.reshape(-1), "amin")
    bottom = torch.full((count + 1,), -1).scatter_reduce_(0, flat.reshape(-1), row.reshape(-1), "amax")
    for label in range(1, count + 1):
        columns = used[label].nonzero()[:, 0]
        if not len(columns):
            continue
        ahead = torch.cat([columns[1:], columns[:1] + width])
        gap = int((ahead - columns).argmax())  # the box is what the widest gap leaves
        left = int(ahead[gap]) % width
        right = left + width - (int(ahead[gap]) - int(columns[gap])) + 1
        out[label - 1] = torch.tensor([left, int(top[label]), right, int(bottom[label]) + 1])
    return out


def superpixels(features: Tensor, known: Tensor, count: int, spacing_weight: float) -> Tensor:
    """About `count` small regions of similar features [F, H, W], as [1, H, W] int32 from 1, 0 where unknown.

    Clustering as in SLIC, with cells spread evenly over the sphere; `spacing_weight` is the difference in features that
    weighs as much as the distance between two cells.
    """
    height, width = features.shape[-2:]
    seeds = directions.fibonacci(count)
    spacing = float((4 * np.pi / count) ** 0.5)
    rays = sphere.erp_rays(height, width).reshape(-1, 3)
    _, near = cKDTree(seeds.numpy()).query(rays.numpy(), min(_CANDIDATES, count))
    candidates = torch.from_numpy(np.asarray(near).reshape(len(rays), -1))
    pixels = torch.cat([features.cpu().reshape(len(features), -1).T, rays * (spacing_weight / spacing)], dim=1)
    weight = sphere.solid_angles(height, width).expand(height, width).reshape(-1) * known.reshape(-1).cpu()
    own = candidates[:, 0]
    for _ in range(_ROUNDS):
        mass = torch.zeros(count).index_add_(0, own, weight)
        centre = torch.zeros(count, pixels.shape[1]).index_add_(0, own, pixels * weight[:, None])
        centre = centre / mass.clamp_min(1e-12)[:, None]
        centre[mass == 0] = torch.inf
        cost = torch.stack([(pixels - centre[one]).square().sum(1) for one in candidates.T], dim=1)
        own = candidates.gather(1, cost.nan_to_num(nan=torch.inf).argmin(1, keepdim=True))[:, 0]
    labels = torch.where(known.reshape(-1).cpu(), own + 1, 0).reshape(1, height, width)
    return parts(labels).to(features.device)


def borders(labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Pairs of adjacent regions, smaller number first, [P] and [P], and where they meet.

    The last three are, for each pair of adjacent pixels in different regions: which pair of regions [B], and the two
    pixels [B], [B], the first in the region with the smaller number.
    """
    first, second = neighbours(*labels.shape[-2:])
    flat = labels.reshape(-1).cpu().long()
    a, b = flat[first], flat[second]
    differ = (a != b) & (a > 0) & (b > 0)
    swap = a > b
    here, there = torch.where(swap, second, first)[differ], torch.where(swap, first, second)[differ]
    code = flat[here] * (int(flat.max()) + 1) + flat[there]
    pairs, which = code.unique(return_inverse=True)
    return pairs // (int(flat.max()) + 1), pairs % (int(flat.max()) + 1), which, here, there


def merge(
    count: int,
    first: Sequence[int],
    second: Sequence[int],
    cost: Sequence[float],
    length: Sequence[float],
    limit: float,
) -> NDArray[np.int64]:  # [count + 1]
    """Merge regions 1..count while the mean cost along some common border is below `limit`, cheapest first.

    Returns the new number of each region, from 1; entry 0 stays 0. Averages over whole borders do not leak where a
    border is faint in one place.
    """
    around: list[dict[int, list[float]]] = [{} for _ in range(count + 1)]
    heap = []
    for i, j, c, n in zip(first, second, cost, length, strict=True):
        around[i][j] = around[j][i] = [c * n, n]
        heap.append((c, i, j, n))
    heapq.heapify(heap)
    parent = list(range(count + 1))
    while heap:
        c, i, j, n = heapq.heappop(heap)
        if c >= limit:
            break
        if parent[i] != i or parent[j] != j or j not in around[i] or around[i][j][1] != n:
            continue  # an entry from before a merger
        if len(around[i]) < len(around[j]):
            i, j = j, i
        parent[j] = i
        del around[i][j], around[j][i]
        for k, (total, border) in around[j].items():
            del around[k][j]
            old = around[i].get(k, [0.0, 0.0])
            joint = [old[0] + total, old[1] + border]
            around[i][k] = around[k][i] = joint
            heapq.heappush(heap, (joint[0] / joint[1], min(i, k), max(i, k), joint[1]))
    for i in range(1, count + 1):
        root = i
        while parent[root] != root:
            root = parent[root]
        parent[i] = root
    return _renumbered(np.asarray(parent)).numpy().astype(np.int64)


def renumber(labels: Tensor) -> Tensor:  # any shape, int32
    """Numbers from 1 without gaps, in the order of first occurrence; 0 stays 0."""
    return _renumbered(labels.cpu().numpy()).to(labels.device)


def _connect(first: NDArray[np.int64], second: NDArray[np.int64], count: int) -> NDArray[np.int32]:
    graph = sparse.coo_matrix((np.ones(len(first), np.int8), (first, second)), shape=(count, count))
    labels: NDArray[np.int32] = csgraph.connected_components(graph, directed=False)[1]
    return labels


def _renumbered(labels: NDArray[Any]) -> Tensor:  # any shape, int32
    """Numbers without gaps in the order of first occurrence; 0 stays 0."""
    values, first, inverse = np.unique(labels.reshape(-1), return_index=True, return_inverse=True)
    rank = np.empty(len(values), np.int32)
    order = np.argsort(np.where(values == 0, -1, first), kind="stable")
    rank[order] = np.arange(len(values), dtype=np.int32) + (0 if 0 in values else 1)
    return torch.from_numpy(rank[inverse].reshape(labels.shape))
