"""Muon: momentum steps of matrices whose singular values were all made alike, and AdamW for everything else.

Networks that start from nothing need fewer samples with it than with AdamW alone. The scale is that of Liu et al.,
"Muon is scalable for LLM training": a step changes the numbers of a matrix as much as one of AdamW would, so one
learning rate does for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..checks import Range
from ..hardware import fast_bfloat16

_LEAST_SIDE = 16  # of what counts as a matrix
_ROUNDS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)  # brings singular values in 0..1 near 1 in five rounds
_ALIKE = 0.2  # root mean square of an AdamW step over the learning rate, as measured in the paper


def is_matrix(parameter: Tensor) -> bool:
    """Whether it maps many numbers to many: depthwise filters, tables of one row, biases and norms do not."""
    if parameter.ndim < 2 or (parameter.ndim == 4 and parameter.shape[1] == 1):
        return False
    rows = parameter.shape[0]
    return min(rows, parameter.numel() // rows) >= _LEAST_SIDE


def orthogonalised(matrix: Tensor) -> Tensor:  # [m, n]
    """Nearly U V^T of the matrix's U S V^T: all singular values between about 0.7 and 1.2."""
    a, b, c = _QUINTIC
    x = matrix.bfloat16() if fast_bfloat16(matrix.device) else matrix.float()
    tall = x.shape[0] > x.shape[1]
    x = x.mT if tall else x
    x = x / (x.norm() + 1e-7)
    for _ in range(_ROUNDS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrix.dtype)


class Muon(Optimizer):
    """Matrices by Muon, the rest by AdamW; convolutions count as matrices of [out, everything else]."""

    def __init__(
        self,
        params: Iterable[Any],
        lr: Annotated[float, Range(0)] = 1e-3,
        momentum: Annotated[float, Range(0, 1)] = 0.95,
        betas: tuple[Annotated[float, Range(0, 1)], Annotated[float, Range(0, 1)]] = (0.9, 0.999),
        eps: Annotated[float, Range(0)] = 1e-8,
        weight_decay: Annotated[float, Range(0)] = 0.05,
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Move every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    move = _along_matrix if is_matrix(parameter) else _along_numbers
                    move(parameter, parameter.grad, self.state[parameter], group)
        return loss


def _along_matrix(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["momentum"] = torch.zeros_like(parameter)
    mean = state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(mean, group["momentum"]).flatten(1)
    size = _ALIKE * max(ahead.shape) ** 0.5
    parameter.sub_(orthogonalised(ahead).view(parameter.shape), alpha=group["lr"] * size)


def _along_numbers(parameter: Tensor, gradient: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
    if not state:
        state["step"] = torch.zeros(())
        state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
    state["step"] += 1
    count, (first, second) = float(state["step"]), group["betas"]
    state["mean"].lerp_(gradient, 1 - first)
    state["square"].lerp_(gradient.square(), 1 - second)
    spread = (state["square"] / (1 - second**count)).sqrt_().add_(group["eps"])
    parameter.addcdiv_(state["mean"], spread, value=-group["lr"] / (1 - first**count))
