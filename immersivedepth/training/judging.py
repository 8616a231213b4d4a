"""A network as it is used, over samples that are not learnt from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ..checks import ConfigError
from ..data.samples import Samples, Stream
from . import sampling
from .system import System, to_device
from .trainer import FAST_STEPS, Trainer


def evaluation_batches(samples: Samples | Stream, trainer: Trainer, fabric: Any, seed: int) -> Iterator[dict[str, Any]]:
    """Every sample once, in order, each process its share."""
    if not isinstance(samples, Samples):
        raise ConfigError("endless data cannot be evaluated: its system needs samples for the part to be judged")
    size = trainer.validation_size or max(1, trainer.batch_size // (fabric.world_size * trainer.accumulate))
    mine = range(fabric.global_rank, len(samples), fabric.world_size)
    keys = [[(0, i) for i in mine[start : start + size]] for start in range(0, len(mine), size)]
    if trainer.fast:
        keys = keys[:FAST_STEPS]
    for batch in sampling.loader(samples, keys, seed, trainer.workers, fabric.device):
        yield to_device(batch, fabric.device)


@torch.no_grad()
def judged(
    system: System, net: nn.Module, batches: Iterator[dict[str, Any]], fabric: Any
) -> Iterator[tuple[Any, dict[str, Any], dict[str, Tensor], Tensor]]:
    """Outputs, batch, losses and their sum for every batch, with the network as it is used."""
    was = net.training
    net.eval()
    try:
        for batch in batches:
            with fabric.autocast():
                outputs = system.forward(net, batch)
            outputs = _in_float(outputs)
            losses = system.losses(outputs, batch)
            yield outputs, batch, losses, torch.stack(list(losses.values())).sum()
    finally:
        net.train(was)


def _in_float(outputs: Any) -> Any:
    from lightning_utilities.core.apply_func import apply_to_collection

    return apply_to_collection(outputs, Tensor, lambda t: t.float() if t.is_floating_point() else t)
