"""How much two masks overlap, of chances or of sharp ones."""

from __future__ import annotations

from torch import Tensor

SMOOTH = 1.0  # added to both counts of Dice, so that two empty masks agree


def dice(chances: Tensor, target: Tensor) -> Tensor:
    """One minus the Dice overlap over the whole batch."""
    shared = (chances * target).sum()
    return 1 - (2 * shared + SMOOTH) / (chances.sum() + target.sum() + SMOOTH)


def soft_overlap(chances: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of chances, without a threshold: their ratio is the original's IoU."""
    shared = (chances * target).sum()
    return shared, (chances + target).sum() - shared


def hard_overlap(chances: Tensor, target: Tensor, threshold: float = 0.5) -> tuple[Tensor, Tensor]:
    """Intersection and union in pixels; JPEG makes masks soft, so both are cut at the threshold."""
    a, b = chances > threshold, target > threshold
    return (a & b).sum().float(), (a | b).sum().float()
