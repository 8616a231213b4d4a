"""Errors a user can act on, each with its exit code, and shape checks that read like the comments they enforce."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # configs are checked before torch is loaded, which takes over a second
    from torch import Tensor


@dataclass(frozen=True)
class Range:
    """Bounds of a number, both included: `Annotated[int, Range(1)]` on a field is checked when a config is built."""

    low: float = -math.inf
    high: float = math.inf

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"at least {self.low:g}"
        return f"at most {self.high:g}" if self.low == -math.inf else f"from {self.low:g} to {self.high:g}"


class UserError(Exception):
    """A mistake or a lack that the person at the keyboard can mend: one line, no traceback."""

    code = 1


class ConfigError(UserError):
    """A key, a value or a name in a config or on the command line is wrong."""

    code = 2


class InputError(UserError):
    """A file that was given to be worked on cannot be used."""

    code = 3


class WeightsError(UserError):
    """Weights are missing, damaged or not those of the network they were given to."""

    code = 4


class ResourceError(UserError):
    """Memory, disk or a device does not suffice."""

    code = 5


class ShapeError(ValueError):
    """A tensor does not have the shape its contract names."""


def check_shapes(owner: str, **specs: tuple[Tensor | None, str]) -> None:
    """Check tensors against specs such as "V 3 h w"; one letter means one size throughout the call.

    Digits are exact sizes, "_" is any size, and None tensors are skipped.
    """
    sizes: dict[str, int] = {}
    for name, (tensor, spec) in specs.items():
        if tensor is None:
            continue
        found = f"{owner}.{name}: expected [{spec}], got {list(tensor.shape)}"
        dims = spec.split()
        if tensor.ndim != len(dims):
            raise ShapeError(found)
        for dim, size in zip(dims, tensor.shape, strict=True):
            if dim == "_":
                continue
            want = int(dim) if dim.isdigit() else sizes.setdefault(dim, size)
            if want != size:
                raise ShapeError(found if dim.isdigit() else f"{found}: {dim} is {want} elsewhere")
