"""What trainable data looks like: samples one may ask for by number, or batches made on the spot."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

Batch = dict[str, Tensor]


@runtime_checkable
class Samples(Protocol):
    """A set of samples of one split.

    All randomness of a sample comes from the generator it is given, so that it is the same in every worker, in every
    process and after a resume. A tensor `weights` [N] on the set makes samples be drawn in proportion to it instead of
    once an epoch. A true `several` says that a sample is a stack of views, which a batch then holds one after another.
    """

    def __len__(self) -> int: ...

    def sample(self, index: int, random: np.random.Generator) -> Batch:
        """One sample, tensors without batch axis."""
        ...


@runtime_checkable
class Stream(Protocol):
    """Endless batches, each a function of its number alone: data that is rendered while training."""

    def batch(self, number: int, size: int, device: torch.device) -> Batch:
        """The batch of that number, on the device."""
        ...
