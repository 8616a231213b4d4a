"""Steps whose loss or gradients are not finite: left out and counted, and the end of a run that has only such."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor, nn

from ..checks import ConfigError, UserError
from .checkpoints import Position

log = logging.getLogger(__name__)


class Diverged(UserError):
    """Loss or gradients are no longer numbers."""

    code = ConfigError.code


def norm_of(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The length of all gradients together; not finite if any of them is not."""
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def count(position: Position, sound: bool) -> None:
    """Note whether a step was taken."""
    position.broken_in_a_row = 0 if sound else position.broken_in_a_row + 1
    position.broken += not sound


def heed(position: Position, most: int, remedy: str, last: Path) -> None:
    """After a step: say that it was left out, and end after `most` of them in a row."""
    if not position.broken_in_a_row:
        return
    log.warning("step %d: loss or gradients are not finite; it is left out", position.step)
    if position.broken_in_a_row >= most:
        raise Diverged(
            f"loss or gradients were not finite in {most} steps in a row, up to step {position.step}: {remedy}; "
            f"the last checkpoint is {last}"
        )
