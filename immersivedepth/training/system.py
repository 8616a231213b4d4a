"""What a system tells the training loop: its network, data, losses, metrics and pictures."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..data.samples import Batch, Samples, Stream
from ..weights import fit, read

Split = Literal["train", "val", "test"]
Share = tuple[Tensor, Tensor]  # a sum over samples or pixels, and the count it is to be divided by


@dataclass(kw_only=True)
class System(ABC):
    """One trainable depth system; the fields of its class are the keys of its YAML."""

    weights: str | None = None  # for evaluate and predict: a file; null: the best of the newest run

    @property
    def name(self) -> str:
        """Its name in messages and records."""
        return type(self).__name__

    @abstractmethod
    def net(self) -> nn.Module:
        """The network, freshly drawn from torch's random numbers."""

    @abstractmethod
    def data(self, dataset: Any, split: Split) -> Samples | Stream | None:
        """The samples of a split; None where there are none."""

    def varied(self, batch: Batch) -> Batch:
        """A training batch with what all its samples share drawn from torch's random numbers of the step: its size."""
        return batch

    @abstractmethod
    def forward(self, net: nn.Module, batch: Batch) -> Any:
        """What the network makes of a batch."""

    @abstractmethod
    def losses(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Named terms, weighted; their sum is the loss."""

    def metrics(self, outputs: Any, batch: Batch) -> dict[str, Share]:
        """Named sums with their counts; they are added up over batches and processes and divided at the end."""
        return {}

    def summary(self, means: dict[str, float]) -> dict[str, float]:
        """The figures of an epoch, from the mean of each metric: the place for a root of a mean square."""
        return means

    def panels(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        """Named rows of pictures [N, 3, h, w] in 0..1 for a few fixed samples."""
        return {}

    def parameters(self, net: nn.Module) -> Iterable[Any]:
        """What the optimiser is given: parameters, or groups of them."""
        return net.parameters()

    def read_weights(self, net: nn.Module, path: str | Path) -> None:
        """Load a checkpoint of this loop, or one of the original program."""
        fit(net, self.renamed(read(path)), what=str(path), key=f"system is {self.name}")

    def renamed(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """The names of the original program's weights in ours."""
        return state

    def predict(self, net: nn.Module, dataset: Any, folder: Path, config: dict[str, Any]) -> Iterable[Predicted]:
        """Work on a user's own inputs (mode=predict), one after another; `config` is the whole run's.

        A bad input is yielded as such, not raised, so that the others go on.
        """
        from ..checks import ConfigError

        raise ConfigError(f"mode=predict: {self.name} has no inputs of its own; use mode=evaluate")

    def recorded(self, folder: Path, row: dict[str, Any]) -> None:  # noqa: B027 - a hook most do not need
        """Called on the first process with every row of the records: the place for logs in another form."""


@dataclass(frozen=True)
class Predicted:
    """What became of one input."""

    source: str
    files: tuple[Path, ...] = ()
    error: str | None = None


def decaying(net: nn.Module) -> list[dict[str, Any]]:
    """Groups for an optimiser: matrices and filters decay, biases and norms do not."""
    wanted = [p for p in net.parameters() if p.requires_grad]
    return [
        {"params": [p for p in wanted if p.ndim > 1]},
        {"params": [p for p in wanted if p.ndim <= 1], "weight_decay": 0.0},
    ]


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch on a device; texts stay as they are."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}
