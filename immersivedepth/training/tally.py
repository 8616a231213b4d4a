"""Means of an epoch from sums: exact whatever the sizes of batches and the number of processes."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .system import Share


class Tally:
    """Sums and counts by name, in double precision."""

    def __init__(self, sums: dict[str, tuple[float, float]] | None = None) -> None:
        self._sums: dict[str, Tensor] = {k: torch.tensor(v, dtype=torch.float64) for k, v in (sums or {}).items()}

    def add(self, shares: dict[str, Share]) -> None:
        """Add sums with their counts; they stay on their device, so that nothing waits for it."""
        for name, (total, count) in shares.items():
            pair = torch.stack([torch.as_tensor(total).detach(), torch.as_tensor(count).to(total).detach()])
            pair = pair.to(torch.float64 if pair.device.type != "mps" else torch.float32)
            old = self._sums.get(name)
            self._sums[name] = pair if old is None else old.to(pair.device) + pair

    def plain(self) -> dict[str, tuple[float, float]]:
        """The sums as numbers, for checkpoints."""
        return {k: (float(v[0]), float(v[1])) for k, v in self._sums.items()}

    def means(self, fabric: Any = None) -> dict[str, float]:
        """Sum over count of each name, over all processes; a name that counted nothing is nan."""
        names = sorted(self._sums)
        if not names:
            return {}
        table = torch.stack([self._sums[name].cpu() for name in names])
        if fabric is not None and fabric.world_size > 1:
            table = fabric.all_reduce(table, reduce_op="sum").cpu()
        return {name: float(a / b) if float(b) else float("nan") for name, (a, b) in zip(names, table, strict=True)}
