"""Remember results of pure functions within a bound in bytes, the longest unused going first."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..scene import Rig

T = TypeVar("T")


def size_of(value: Any) -> int:
    """Bytes of all arrays and tensors in nested tuples and lists."""
    if isinstance(value, tuple | list):
        return sum(size_of(part) for part in value)
    return int(getattr(value, "nbytes", 0))


def cached(limit: int) -> Callable[[Callable[..., T]], Callable[..., T]]:
    """Decorate a function of hashable arguments; a result larger than `limit` bytes is handed on but not kept.

    The decorated function has `clear()`, and `held()` tells the bytes it keeps.
    """

    def decorate(function: Callable[..., T]) -> Callable[..., T]:
        kept: OrderedDict[Any, T] = OrderedDict()
        lock = threading.Lock()

        @functools.wraps(function)
        def remembering(*key: Any) -> T:
            with lock:
                if key in kept:
                    kept.move_to_end(key)
                    return kept[key]
            value = function(*key)
            with lock:
                if size_of(value) <= limit:
                    kept[key] = value
                    while size_of(list(kept.values())) > limit:
                        kept.popitem(last=False)
            return value

        remembering.clear = kept.clear  # type: ignore[attr-defined]
        remembering.held = lambda: size_of(list(kept.values()))  # type: ignore[attr-defined]
        return remembering

    return decorate


def key_of(*tensors: Tensor) -> bytes:
    """The numbers of small tensors as something hashable."""
    return b"".join(tensor.detach().cpu().contiguous().numpy().tobytes() for tensor in tensors)


def rig_key(rig: Rig) -> tuple[bytes, bytes, int]:
    """A rig as something hashable, from which `rig_of` makes it again."""
    return key_of(rig.rotation.float()), key_of(rig.tan_half_fov.float()), rig.resolution


def rig_of(rotations: bytes, tans: bytes, resolution: int) -> Rig:
    """The rig of a key, on the CPU."""
    rotation, tan = (torch.from_numpy(np.frombuffer(numbers, np.float32).copy()) for numbers in (rotations, tans))
    return Rig(rotation.reshape(-1, 3, 3), tan, resolution)
