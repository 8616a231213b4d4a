"""What files say besides their pixels: Google's photo sphere tags (GPano) in XMP, and the orientation in EXIF."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

GPANO = "{http://ns.google.com/photos/1.0/panorama/}"
ORIENTATION = 274  # EXIF tag


def read_gpano(xmp: bytes | str) -> dict[str, Any]:
    """The GPano properties of an XMP packet, written as attributes or as elements; numbers as int or float."""
    from xml.etree.ElementTree import ParseError

    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import fromstring

    data = xmp.encode() if isinstance(xmp, str) else bytes(xmp)
    try:
        root = fromstring(data.strip(b"\0 \t\r\n"))
    except (ParseError, DefusedXmlException, LookupError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}"[:120]) from error
    found: dict[str, Any] = {}
    for element in root.iter():
        pairs = [*element.attrib.items(), (element.tag, element.text or "")]
        found |= {key[len(GPANO) :]: _number(value) for key, value in pairs if str(key).startswith(GPANO)}
    return found


def _number(text: str) -> int | float | str:
    text = text.strip()[:100]
    with contextlib.suppress(ValueError):
        value = float(text)
        if math.isfinite(value):
            return int(value) if value == int(value) else value
    return text


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Undo an EXIF orientation: 5 to 8 lie on their side, the others may be mirrored or upside down."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
