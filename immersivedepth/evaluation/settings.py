"""How an evaluation is carried out; nothing here changes a figure but the number of resampled sets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ..checks import Range


@dataclass
class Settings:
    """The fields are the keys of conf/evaluation."""

    workers: Annotated[int, Range(1, 256)] = 1  # processes that look at images
    samples: Annotated[int, Range(2, 100000)] = 1000  # resampled sets of images, for the confidence intervals
    strip: Annotated[int, Range(32, 2048)] = 256  # width of each small picture on the page
