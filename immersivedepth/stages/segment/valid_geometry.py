"""Which pixels can be trusted, each doubt on its own."""

import math
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ...checks import Range
from ...geometry import pinhole, sphere
from ...scene import Geometry, Panorama, unit_image
from .sky import find_sky

_WORK = 256  # rows at which texture is looked for
_TEXTURE = 2.5 / 255  # second difference of neighbours; a smooth ramp in 8 bits has up to 2
_LEAST_TEXTURED = 0.005  # of the sphere; the bare edges of an empty white room are some hundredths


@dataclass
class ValidGeometry:
    """Distrust sky, depth edges, pixels whose views are few or disagree, the tripod, and what is not shown.

    A picture of one colour, or of nothing but a smooth ramp, tells no shape: then all of it is distrusted.

    sky: `given` takes the sky of the predictors, `guess` falls back on colour, position and distance where they give
    none, `none` keeps whatever is there and looks for none.
    """

    edge_ratio: Annotated[float, Range(1)] = 1.25
    max_spread: Annotated[float, Range(0)] = 0.5
    min_views: Annotated[int, Range(1)] = 1
    nadir: Annotated[float, Range(0, 90)] = 0.0
    sky: Literal["given", "guess", "none"] = "given"

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Narrow the mask; the report says how much of the sphere each doubt takes."""
        if self.sky == "guess" and (geometry.sky is None or not geometry.sky.any()):
            geometry = with_sky(geometry, find_sky(geometry, panorama))
        doubts = {
            "unknown": ~(geometry.mask & geometry.distance.isfinite() & (geometry.distance > 0)),
            "depth_edge": depth_edges(geometry, self.edge_ratio),
        }
        if geometry.spread is not None:
            doubts["disagreement"] = geometry.spread > self.max_spread
        if geometry.sky is not None and self.sky != "none":
            doubts["sky"] = geometry.sky
        if self.min_views > 1 and geometry.aligned is not None:
            doubts["few_views"] = view_count(geometry) < self.min_views
        if self.nadir > 0:
            doubts["tripod"] = nadir_disc(geometry.distance, self.nadir)
        if panorama.mask is not None:
            doubts["not_shown"] = ~panorama.mask
        notes = list(geometry.report.get("notes", ()))
        if _textured(panorama) < _LEAST_TEXTURED:
            doubts["featureless"] = torch.ones_like(geometry.mask)
            notes.append("the picture shows next to no features; its shape is a guess")
        mask = ~torch.stack(list(doubts.values())).any(0)
        report = {
            **geometry.report,
            "notes": notes,
            "segment": {"distrusted": _shares(doubts), "trusted": _share(mask)},
        }
        return replace(geometry, mask=mask, report=report)


def depth_edges(geometry: Geometry, ratio: float) -> Tensor:  # [1, H, W], bool
    """Where a neighbour is more than `ratio` times as far away; holes and sky take no part, they are marked already."""
    known = geometry.mask & geometry.distance.isfinite() & (geometry.distance > 0)
    log = torch.where(known, geometry.distance, 1.0).log()
    around = sphere.pad_erp(torch.stack([torch.where(known, x, -torch.inf) for x in (log, -log)]), 1)
    farthest, nearest = F.max_pool2d(around, 3, 1)  # the second with its sign turned
    return known & ((farthest + nearest).exp() > ratio)


def view_count(geometry: Geometry) -> Tensor:  # [1, H, W]
    """How many views look at each pixel."""
    if geometry.aligned is None:
        raise ValueError("view_count: expected a geometry that remembers its views")
    height, width = geometry.distance.shape[-2:]
    rig, rays = geometry.aligned.rig, sphere.erp_rays(height, width, geometry.distance.device)
    count = torch.zeros(height, width, dtype=torch.int16, device=rays.device)
    for rotation, tan in zip(rig.rotation.to(rays), rig.tan_half_fov.tolist(), strict=True):
        count += pinhole.project_rays(rays, rotation, tan)[1]
    return count[None]


def nadir_disc(like: Tensor, radius: float) -> Tensor:  # [1, H, W], bool
    """The disc of that radius in degrees about straight down, where a tripod stands or a logo was pasted over it."""
    height, width = like.shape[-2:]
    below = sphere.latitudes(height) < math.radians(radius - 90)
    return below.to(like.device)[None, :, None].expand(1, height, width)


def with_sky(geometry: Geometry, sky: Tensor) -> Geometry:
    """The same geometry with a sky, which is infinitely far."""
    distance = geometry.distance.masked_fill(sky, torch.inf)
    normal = None if geometry.normal is None else geometry.normal * ~sky
    return replace(geometry, distance=distance, normal=normal, sky=sky, mask=geometry.mask & ~sky)


def _textured(panorama: Panorama) -> float:
    """Share of the sphere, of the shown part alone, where neighbouring pixels form more than a smooth ramp."""
    rows = min(_WORK, panorama.size[0])
    image = sphere.resize_erp(unit_image(panorama.image), rows, 2 * rows)
    bend = (image.roll(1, -1) + image.roll(-1, -1) - 2 * image).abs().amax(0, keepdim=True)
    down = (image[:, 2:] + image[:, :-2] - 2 * image[:, 1:-1]).abs().amax(0, keepdim=True)
    textured = torch.maximum(bend, F.pad(down, (0, 0, 1, 1))) > _TEXTURE
    if panorama.mask is None:
        return _share(textured)
    shown = sphere.resize_erp(panorama.mask.float(), rows, 2 * rows, "nearest") > 0.5
    return _share(textured & shown) / max(_share(shown), 1e-6)


def _share(mask: Tensor) -> float:
    area = sphere.solid_angles(mask.shape[-2], mask.shape[-1], mask.device).double() / (4 * math.pi)
    return round(float((mask[0] * area).sum()), 6)


def _shares(doubts: dict[str, Tensor]) -> dict[str, Any]:
    """Share of the sphere that falls to each doubt; pixels may fall to several."""
    return {name: _share(doubt) for name, doubt in doubts.items()}
