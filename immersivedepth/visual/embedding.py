"""Pictures as text that stands inside a page."""

from __future__ import annotations

import base64
from typing import Literal

import cv2
import numpy as np

from .colours import Picture


def data_url(picture: Picture, kind: Literal["jpeg", "png"] = "png", quality: int = 88) -> str:
    """A picture as a data: address."""
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if kind == "jpeg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    done, data = cv2.imencode(f".{kind}", np.ascontiguousarray(picture[..., ::-1]), options)
    if not done:
        raise ValueError(f"data_url: {picture.shape[1]}x{picture.shape[0]} pixels cannot be encoded as {kind}")
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
