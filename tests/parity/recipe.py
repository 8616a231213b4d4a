"""Stand-in weights and inputs that are the same bits on every machine, so that recorded outputs can be reproduced.

A weight is offset + scale * u, where u in [-1, 1) comes from a legacy numpy generator (frozen by numpy's compatibility
policy) seeded with the CRC-32 of its key. keys/<model>.json lists shape, offset and scale of every key of a released
file; keys without a scale are index tables and counters that a network builds itself.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

KEYS = Path(__file__).parent / "keys"
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def specification(model: str) -> dict[str, Any]:
    """Everything keys/<model>.json says: the header, and under "keys" one entry per key of the released file."""
    found: dict[str, Any] = json.loads((KEYS / f"{model}.json").read_text())
    return found


def draw(key: str, shape: list[int], offset: float, scale: float) -> Tensor:
    """One weight of the recipe."""
    # The legacy generator is the recipe: the new ones do not promise the same numbers in every version.
    random = np.random.RandomState(zlib.crc32(key.encode())).random_sample(int(np.prod(shape)))
    return torch.from_numpy((offset + scale * (2.0 * random - 1.0)).astype(np.float32).reshape(shape))


def weights(model: str) -> dict[str, Tensor]:
    """Every drawn key of keys/<model>.json."""
    return {
        key: draw(key, entry["shape"], entry["offset"], entry["scale"])
        for key, entry in specification(model)["keys"].items()
        if "scale" in entry
    }


def checksum(state: dict[str, Tensor]) -> int:
    """CRC-32 over the little-endian float32 bytes of all keys in sorted order; the header calls it weights_crc32."""
    crc = 0
    for key in sorted(state):
        crc = zlib.crc32(np.ascontiguousarray(state[key].numpy(), dtype="<f4").tobytes(), crc)
    return crc


def _triangle(t: NDArray[np.int64], half_period: int) -> NDArray[np.int64]:
    return np.abs(np.mod(t, 2 * half_period) - half_period)


def image_u8(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:  # [height, width, 3]
    """RGB test picture by integer arithmetic alone: gratings, two boxes, a little hash noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    picture = np.empty((height, width, 3), np.uint8)
    upper_box = (y > height // 5) & (y < height // 2) & (x > width // 3) & (x < 3 * width // 4)
    lower_box = (y > 3 * height // 5) & (x < width // 4)
    for c in range(3):
        value = 100 * _triangle((3 + c) * x + 2 * y + 17 * seed + 5 * c, 61) // 61
        value += 80 * _triangle((5 - c) * y - 2 * x + 29 * c + 7 * seed, 43) // 43
        value += 40 * _triangle(11 * x + (7 + 2 * c) * y + 3 * seed, 97) // 97
        value += ((x * 73856093) ^ (y * 19349663) ^ ((c + 1) * 83492791) ^ (seed * 2654435761)) >> 7 & 15
        value = np.where(upper_box, 255 - value, value)
        value = np.where(lower_box, value // 3 + 20 * c, value)
        picture[..., c] = np.clip(value, 0, 255)
    return picture


def net_input(
    height: int, width: int, norm: tuple[tuple[float, ...], tuple[float, ...]], seed: int = 0
) -> Tensor:  # [1, 3, height, width]
    """The test picture normalised by (mean, std) in float64, as float32."""
    mean, std = norm
    value = (image_u8(height, width, seed) / 255.0 - np.array(mean)) / np.array(std)
    return torch.from_numpy(np.ascontiguousarray(value.transpose(2, 0, 1)[None]).astype(np.float32))


def stereo_pair_u8(
    height: int, width: int, seed: int = 0, max_shift: int = 24
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:  # [height, width, 3] twice
    """Left and right test pictures with right(y, x) = left(y, x + d) for an integer disparity d that varies."""
    wide = image_u8(height, width + 64, seed)
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    disparity = 2 + _triangle(x + 2 * y, 97) * (max_shift - 4) // 97
    right = wide[y, np.minimum(x + 32 + disparity, width + 63)]
    return wide[:, 32 : 32 + width].copy(), right.copy()
