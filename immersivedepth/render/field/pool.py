"""What a field is supervised by: the panorama, and views beside it whose new parts have been completed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ...geometry import sphere
from ...geometry.normals import normals_from_distance

LEAST = 1e-5  # distances below are unknown


@dataclass
class Known:
    """A panorama at a place: colours, distances and normals, and where they count."""

    position: Tensor  # [3]
    image: Tensor  # [3, H, W]
    distance: Tensor  # [1, H, W], inf for sky, 0 where unknown
    normal: Tensor  # [3, H, W]
    mask: Tensor  # [1, H, W], bool: rays that teach

    @classmethod
    def of(cls, position: Tensor, image: Tensor, distance: Tensor, mask: Tensor, normal: Tensor | None = None) -> Known:
        """With the normals that belong to the distances where no others are known."""
        found = normals_from_distance(distance) if normal is None else normal
        return cls(position, image, distance, found, mask)

    def kept(self, max_laplacian: float, min_cosine: float) -> Tensor:  # [H, W]
        """Rays that may teach: known, away from edges, and not along the surface.

        The Laplacian is that of log distance, so that it means the same at all distances and for any unit.
        """
        solid = (self.distance > LEAST) & self.distance.isfinite()
        log = torch.where(solid, self.distance.clamp_min(LEAST).log(), 0.0)
        around = sphere.pad_erp(log, 1)
        laplacian = around[:, :-2, 1:-1] + around[:, 2:, 1:-1] + around[:, 1:-1, :-2] + around[:, 1:-1, 2:] - 4 * log
        # Openings and closings by 3 x 3 in the original; one dilation of the edges does what both do to a line.
        edge = F.max_pool2d(sphere.pad_erp((laplacian.abs() > max_laplacian).float(), 1)[None], 3, 1)[0] > 0
        height, width = self.distance.shape[-2:]
        rays = sphere.erp_rays(height, width, self.distance.device)
        cosine = -(self.normal.permute(1, 2, 0) * rays).sum(-1)
        return (self.mask & solid & ~edge)[0] & (cosine > min_cosine)

    def seen_from_here(self, points: Tensor, slack: float) -> Tensor:  # [..., 3] -> [...]
        """Which points this view shows: as far away as it says, up to a relative slack."""
        at = points - self.position
        reach = at.norm(dim=-1)
        known = sphere.sample_erp(self.distance, sphere.rays_to_erp(at), "nearest")[..., 0]
        good = sphere.sample_erp(self.mask.to(self.distance), sphere.rays_to_erp(at), "nearest")[..., 0] > 0.5
        return good & ((reach - known).abs() <= slack * reach)

    def hides(self, points: Tensor, slack: float) -> Tensor:  # [..., 3] -> [...]
        """Which points stand in the way of what this view shows."""
        at = points - self.position
        reach = at.norm(dim=-1)
        known = sphere.sample_erp(self.distance, sphere.rays_to_erp(at), "nearest")[..., 0]
        good = sphere.sample_erp(self.mask.to(self.distance), sphere.rays_to_erp(at), "nearest")[..., 0] > 0.5
        return good & (reach < known * (1 - slack))


@dataclass(frozen=True)
class Rays:
    """Supervised rays."""

    origin: Tensor  # [R, 3]
    direction: Tensor  # [R, 3]
    colour: Tensor  # [R, 3]
    distance: Tensor  # [R]
    view: Tensor  # [R], number of the view
    pixel: Tensor  # [R], row * width + column in it

    def __len__(self) -> int:
        return len(self.origin)

    def __getitem__(self, chosen: Tensor) -> Rays:
        return Rays(*(part[chosen] for part in vars(self).values()))


class Pool:
    """The views, in the order in which they came; the first is the panorama itself."""

    def __init__(self, views: list[Known]) -> None:
        self.views = views

    @property
    def source(self) -> Known:
        return self.views[0]

    def rays(self, max_laplacian: float, min_cosine: float) -> Rays:
        """All rays that may teach."""
        parts = []
        for number, view in enumerate(self.views):
            kept = view.kept(max_laplacian, min_cosine)
            height, width = kept.shape
            direction = sphere.erp_rays(height, width, kept.device)[kept]
            parts.append(
                (
                    view.position.to(direction).expand_as(direction),
                    direction,
                    view.image.permute(1, 2, 0)[kept],
                    view.distance[0][kept],
                    torch.full((len(direction),), number, device=kept.device),
                    kept.flatten().nonzero()[:, 0],
                )
            )
        return Rays(*(torch.cat(each) for each in zip(*parts, strict=True)))

    def state(self) -> list[dict[str, Any]]:
        """Plain data for a checkpoint."""
        return [{name: part.cpu() for name, part in vars(view).items()} for view in self.views]

    @classmethod
    def restored(cls, state: list[dict[str, Any]], device: torch.device | str = "cpu") -> Pool:
        """The pool that `state` was taken of."""
        return cls([Known(**{name: part.to(device) for name, part in view.items()}) for view in state])
