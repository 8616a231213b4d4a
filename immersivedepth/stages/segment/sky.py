"""The sky, where no network says which it is: a cautious guess from colour, position and distance."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import filters, robust, segments, sphere
from ...scene import Geometry, Panorama, unit_image

_WORK = 256  # rows at which the sky is looked for
_FLOOR = math.radians(-40)  # below this latitude, pixels show the ground on which the camera stands
# Heights of the camera above that ground: sky is at least so far away, and in its middle at least so high up. A hall
# ten times as high as its visitor would be taken for open air if it were also painted like it.
_FAR, _HIGH = 10.0, 6.0
_LOWEST, _SURE = math.radians(-2), math.radians(10)  # latitude of any sky, and of the sky from which the rest is grown
_DARK, _BLUE, _GREY = 0.3, 0.02, 0.12  # least brightness; excess of blue over red; chroma of clouds
_ROUGH = 0.04  # local contrast above which it is leaves or facades
_SMOOTH = math.radians(1.0)  # width in which contrast is measured
_EDGE, _BORDER = 0.05, math.radians(0.7)  # of the guided filter that draws the outline


def find_sky(geometry: Geometry, panorama: Panorama) -> Tensor:  # [1, H, W], bool
    """Far, high up, bright, blue or grey, smooth, and connected to a part that is all of it beyond doubt."""
    height, width = geometry.distance.shape[-2:]
    rows = min(_WORK, height)
    image = sphere.resize_erp(unit_image(panorama.image), rows, 2 * rows)
    distance = sphere.resize_erp(geometry.distance, rows, 2 * rows, "nearest")
    latitude = sphere.latitudes(rows).float().to(image.device)[None, :, None]
    ground = _camera_height(distance, latitude)
    if ground is None:
        return torch.zeros_like(geometry.mask)
    farness = distance / ground
    brightness = image.amax(0, keepdim=True)
    chroma = brightness - image.amin(0, keepdim=True)
    blue = image[2:] - image[:1]
    contrast = filters.blur((brightness - filters.blur(brightness, _SMOOTH)).square(), _SMOOTH).clamp_min(0).sqrt()
    coloured = (brightness > _DARK) & ((blue > _BLUE) & (image[2:] >= image[1:2] - _GREY) | (chroma < _GREY))
    far = (farness > _FAR) & (latitude > _LOWEST) & coloured
    sure = far & (farness * latitude.sin() > _HIGH) & (latitude > _SURE) & (contrast < _ROUGH)
    parts = segments.components(far)
    grown = torch.isin(parts, parts[sure].unique()) & (parts > 0)
    if not grown.any():
        return torch.zeros_like(geometry.mask)
    full = unit_image(panorama.image)
    outline = filters.guided(full, grown.to(full), _BORDER, _EDGE)
    known = F.max_pool2d(sphere.pad_erp(geometry.distance / ground, 1)[None], 3, 1)[0] > _FAR
    return (outline > 0.5) & known


def _camera_height(distance: Tensor, latitude: Tensor) -> Tensor | None:
    """Height over the ground, in the unit of the distance: the median over the pixels well below the horizon."""
    below = (latitude < _FLOOR) & distance.isfinite() & (distance > 0)
    if not below.any():
        return None
    area = latitude.cos().expand_as(distance)[below]
    return robust.weighted_median((distance * -latitude.sin())[below], area).clamp_min(1e-9)
