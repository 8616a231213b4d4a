"""How a radiance field is trained: geometry, then appearance, then both again with every view beside the panorama.

Random numbers are a function of seed and step, and a checkpoint holds the field, the pool of views, the phase and the
optimiser: a run that was killed continues to the same bits.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from ..checks import ConfigError, InputError, Range
from ..data import images
from ..geometry import sphere
from ..render.field.base import Field, SceneSettings, Taught
from ..render.field.inpaint import Inpaint
from ..render.field.pool import Known, Pool, Rays
from ..render.holes import widen
from ..render.layers import relax
from ..render.paths import CirclePoseSampler
from ..render.protocol import Camera, Pose
from ..visual.colours import colour_distance, distance_scale
from . import broken, checkpoints
from .checkpoints import Position
from .interrupts import Interrupts
from .records import Records

log = logging.getLogger(__name__)

VIEW_ROWS = 256  # of views beside the panorama, and of pictures of the field; no more than the panorama has
GEOMETRY, APPEARANCE = "geometry", "appearance"
_MOST_BROKEN = 10  # steps in a row without finite loss and gradients
DILATION, EROSION = 5, 9  # pixels across, of the ellipses that clean the mask of what is visible


@dataclass
class Radiance:
    """conf/field: steps, losses, ray filters, and the views beside the panorama."""

    anchors: CirclePoseSampler = field(default_factory=CirclePoseSampler)
    budget: Annotated[float, Range(0)] = 1.0  # scales all steps
    geometry_steps: Annotated[int, Range(1)] = 3000
    appearance_steps: Annotated[int, Range(1)] = 1500
    refit_share: Annotated[float, Range(0, 1)] = 1.0  # of those steps, after each further view
    rays: Annotated[int, Range(1)] = 8192  # a step
    rate: Annotated[float, Range(0)] = 1e-2  # of learning, at its highest
    last_rate: Annotated[float, Range(0)] = 1e-4  # at the end of a phase
    warm_up: Annotated[float, Range(0, 1)] = 0.2  # share of a phase in which the rate rises
    distance_weight: Annotated[float, Range(0)] = 1.0
    distance_beta: Annotated[float, Range(1e-6)] = 0.01  # of the smooth L1 loss of relative distances
    distortion_weight: Annotated[float, Range(0)] = 0.1
    distortion_ramp: Annotated[float, Range(0, 1)] = 0.25  # share of a phase in which it rises to its weight
    colour_beta: Annotated[float, Range(1e-6)] = 0.05
    max_laplacian: Annotated[float, Range(0)] = 0.01  # of log distance; rays at edges do not teach
    min_cosine: Annotated[float, Range(0, 1)] = 0.15  # between ray and normal
    slack: Annotated[float, Range(0)] = 1 / 128  # relative distance within which a point is the one that a view shows
    least_distance: Annotated[float, Range(0)] = 0.1  # of new points to their view, of the panorama's median distance
    log_every: Annotated[int, Range(1)] = 10  # steps
    save_minutes: Annotated[float, Range(0)] = 2.0
    new_distances: Literal["harmonic", "predicted"] = "harmonic"  # of completed parts; predicted: by the run's networks

    def steps(self, phase: int) -> int:
        """Steps of a phase; even ones are of geometry, the first two of the panorama alone."""
        steps = self.appearance_steps if phase % 2 else self.geometry_steps
        return max(1, round(steps * self.budget * (self.refit_share if phase > 1 else 1.0)))

    def rate_at(self, share: float) -> float:
        """The learning rate when that share of a phase is done."""
        if share < self.warm_up:
            return self.rate * share / self.warm_up
        part = (share - self.warm_up) / max(1 - self.warm_up, 1e-9)
        return self.last_rate + (self.rate - self.last_rate) * 0.5 * (1 + math.cos(math.pi * part))


@dataclass
class Fit:
    """One field and all that it takes to train it."""

    settings: Radiance
    scene: SceneSettings
    inpaint: Inpaint
    source: Known
    folder: Path
    seed: int
    facts: dict[str, Any]  # the config's nodes: a checkpoint is continued under the same ones only
    look: Callable[[Tensor], Tensor] | None = None  # distances of a picture, up to scale; None: harmonic ones
    position: Position = field(default_factory=Position)
    resting: Any = None  # the optimiser of a phase that was stopped

    @property
    def last(self) -> Path:
        return self.folder / checkpoints.FOLDER / checkpoints.LAST

    def __call__(self, continued: bool) -> Field:
        """Train to the end."""
        self.poses = self._poses()
        if continued and self.last.is_file():
            self._continue(self.last)
        else:
            torch.manual_seed(self.seed)
            self.pool = Pool([self.source])
            self.field = self.scene.field()
            self._start(0)
        self.records = Records(self.folder, self.position)
        try:
            with Interrupts() as self.interrupts, self._bar() as self.bar:
                while self.position.epoch < self.phases:
                    self._phase()
        finally:
            self.records.close()
        return self.field

    @property
    def phases(self) -> int:
        """Of geometry and appearance, for the panorama and for each view beside it."""
        return 2 + 2 * len(self.poses)

    def _poses(self) -> list[Pose]:
        if self.inpaint(self.source.image[:, :2, :4], torch.zeros(1, 2, 4, dtype=torch.bool)) is None:
            return []
        return self.settings.anchors(self.source.distance.cpu()).poses("panorama")

    def _bar(self) -> Any:
        total = sum(self.settings.steps(phase) for phase in range(self.phases))
        return tqdm(total=total, initial=self.position.step, unit="step", desc="field")

    def _continue(self, place: Path) -> None:
        content = checkpoints.load(place)
        training = content["training"]
        if training["facts"] != json.dumps(self.facts, sort_keys=True, default=str):
            raise ConfigError(
                f"{place} was trained with other settings of scene, field or inpaint; set them as they were, or start "
                "anew with is_continue=false"
            )
        self.position = training["position"]
        self.field, self.pool = revived(self.scene, content, self.source.image.device)
        self.resting = training["optimiser"]

    def _start(self, number: int) -> None:
        """The field around the pool; what is random about it depends on seed and fit alone."""
        torch.manual_seed(_seed(self.seed, 1, number))
        self.field.start(self.pool)
        self.resting = None

    # ---- one phase ---------------------------------------------------------------------------------------------------

    def _phase(self) -> None:
        position = self.position
        number, appearance = position.epoch // 2, bool(position.epoch % 2)
        if number >= len(self.pool.views):  # a new view, once for its two phases
            self.pool.views.append(self._beside(number))
            self._start(number)
        rays = self.pool.rays(self.settings.max_laplacian, self.settings.min_cosine)
        if not len(rays):
            raise InputError("no ray is fit to teach: field.max_laplacian and field.min_cosine leave none")
        chosen = self.field.appearance_parameters() if appearance else self.field.geometry_parameters()
        optimiser = torch.optim.Adam(chosen, lr=0.0)
        if self.resting is not None:
            optimiser.load_state_dict(self.resting)
            self.resting = None
        total = self.settings.steps(position.epoch)
        self.saved = time.monotonic()
        while position.step_in_epoch < total:
            self._step(rays, optimiser, position.step_in_epoch / total, appearance)
            self.bar.update()
            broken.heed(position, _MOST_BROKEN, "lower field.rate", self.last)
            due = time.monotonic() - self.saved > 60 * self.settings.save_minutes
            if position.step_in_epoch < total and (due or self.interrupts.code):
                self._save(optimiser)
                self._heed()
        position.epoch += 1
        position.step_in_epoch = 0
        if appearance:
            self._show(number)
        self._save(None)
        self._heed()

    def _heed(self) -> None:
        if self.interrupts.code:
            log.info("stopped at step %d; is_continue=true goes on from there", self.position.step)
            raise SystemExit(self.interrupts.code)

    def _step(self, rays: Rays, optimiser: torch.optim.Optimizer, share: float, appearance: bool) -> None:
        generator = torch.Generator().manual_seed(_seed(self.seed, 2, self.position.step))
        chosen = torch.randint(len(rays), (self.settings.rays,), generator=generator)
        batch = rays[chosen.to(rays.origin.device)]
        rate = self.settings.rate_at(share) * self.scene.rate
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.zero_grad(set_to_none=True)
        taught = self.field.teach(batch, generator, appearance)
        losses = self._losses(taught, batch, share)
        loss = torch.stack(list(losses.values())).sum()
        if loss.requires_grad:
            loss.backward()
            sound = math.isfinite(float(broken.norm_of(self.field.parameters()) + loss.detach()))
            if sound:
                optimiser.step()
            broken.count(self.position, sound)
        self.position.step_in_epoch += 1
        self.position.step += 1  # before it is noted: rows of later steps than a checkpoint's are dropped
        if self.position.step % self.settings.log_every == 0:
            name = "lr_app" if appearance else "lr_geo"
            figures = {key: float(value.detach()) for key, value in losses.items()}
            self.records.note("train", self.position, figures | {name: rate}, whole_epoch=False)
            self.bar.set_postfix({key: f"{value:.2g}" for key, value in figures.items()}, refresh=False)

    def _losses(self, taught: Taught, rays: Rays, share: float) -> dict[str, Tensor]:
        own = self.settings
        if taught.colour is not None:
            return {"color_loss": F.smooth_l1_loss(taught.colour, rays.colour, beta=own.colour_beta)}
        relative = taught.distance / rays.distance
        near = F.smooth_l1_loss(relative, torch.ones_like(relative), beta=own.distance_beta)
        ramp = min(share / own.distortion_ramp, 1.0) if own.distortion_ramp else 1.0
        # A ray that meets nothing has no distance to correct: its missing opacity is what is wrong with it.
        return {
            "depth_loss": own.distance_weight * (near + taught.left.mean()),
            "dist_loss": own.distortion_weight * ramp * taught.distortion.mean(),
        }

    def _save(self, optimiser: torch.optim.Optimizer | None) -> None:
        self.saved = time.monotonic()
        checkpoints.save(
            self.last,
            {name: value.cpu() for name, value in self.field.state_dict().items()},
            self.position,
            phase=APPEARANCE if self.position.epoch % 2 else GEOMETRY,
            sup_pool=self.pool.state(),
            optimiser=None if optimiser is None else optimiser.state_dict(),
            facts=json.dumps(self.facts, sort_keys=True, default=str),
            seed=self.seed,
        )

    # ---- views -------------------------------------------------------------------------------------------------------

    def _show(self, number: int) -> None:
        """1.png and 1_distance.png of the panorama's own view, and the same for TensorBoard."""
        if number:
            return
        frame = self.field.render(Pose(torch.eye(3), torch.zeros(3)), self._camera())
        distance = self.source.distance[0].cpu().numpy()
        scale = distance_scale(distance, self.source.mask[0].cpu().numpy())
        shown = colour_distance(frame.distance[0].cpu().numpy(), scale)
        images.write_png(self.folder / "1.png", frame.image.clamp(0, 1).cpu())
        images.write_png(self.folder / "1_distance.png", shown)
        drawn = torch.from_numpy(np.ascontiguousarray(shown)).permute(2, 0, 1).float() / 255
        given = sphere.resize_erp(self.source.image, frame.image.shape[-2], frame.image.shape[-1])
        panels = {"panorama": given, "field": frame.image, "distance": drawn}
        self.records.pictures(
            Position(self.position.epoch - 1, 0, self.position.step), {k: v.cpu()[None] for k, v in panels.items()}
        )

    def _camera(self) -> Camera:
        rows = min(VIEW_ROWS, self.source.distance.shape[-2])
        return Camera("panorama", rows, 2 * rows)

    def _beside(self, number: int) -> Known:
        """A view beside the panorama: rendered, completed where no view shows it, and checked against all others."""
        pose = self.poses[number - 1]
        frame = self.field.render(pose, self._camera())
        device = self.source.image.device
        place = pose.position.to(device)
        rays = sphere.erp_rays(self._camera().height, self._camera().width, device)
        known = (frame.distance > 0) & frame.distance.isfinite()
        points = place + rays * torch.where(known, frame.distance, 0.0)[0][..., None]
        visible = torch.zeros_like(known[0])
        for view in self.pool.views:
            visible |= view.seen_from_here(points, self.settings.slack)
        visible = _cleaned((visible & known[0])[None] | frame.distance.isinf())
        unseen = ~visible
        torch.manual_seed(_seed(self.seed, 3, number))  # an inpainter of one's own may draw
        image = self.inpaint(frame.image.clamp(0, 1), unseen)
        assert image is not None
        guess = torch.ones_like(frame.distance) if self.look is None else self.look(image)
        distance = continued(guess, frame.distance, unseen, visible & known)
        points = place + rays * torch.where(distance.isfinite(), distance, 0.0)[0][..., None]
        good = unseen[0] & distance[0].isfinite()
        for view in self.pool.views:  # nothing new may stand before what is known
            good &= ~view.hides(points, self.settings.slack)
        distances = self.source.distance[self.source.distance.isfinite() & (self.source.distance > 0)]
        good &= distance[0] > self.settings.least_distance * float(distances.median())
        good &= points.norm(dim=-1) <= float(distances.max())  # beyond, only the sky went on
        self._draw(number, frame.image, image, unseen, good)
        return Known.of(place, image, distance, good[None])

    def _draw(self, number: int, before: Tensor, after: Tensor, unseen: Tensor, good: Tensor) -> None:
        home = self.folder / "inpaint_vis" / f"{number:04d}"
        images.write_png(home / "rendered.png", before.clamp(0, 1).cpu())
        images.write_png(home / "completed.png", after.clamp(0, 1).cpu())
        images.write_png(home / "unseen.png", unseen.cpu())
        images.write_png(home / "registered.png", good[None].cpu())


def continued(guess: Tensor, distance: Tensor, unseen: Tensor, fixed: Tensor) -> Tensor:  # [1, H, W] each
    """Distances whose unseen part has the shape of a guess, and the scale of the fixed ones around it.

    What goes on harmonically is the guess in units of the distance: of a constant guess that is the nearness itself,
    which keeps walls straight; a guess of the right shape is off by one factor, which stays the same all over the part.
    """
    sound = guess.isfinite() & (guess > 0)
    usable = sound & distance.isfinite() & (distance > 0)
    tied = fixed & usable
    ratio = torch.where(tied, guess / distance.clamp_min(1e-9), 0.0)
    total, weight = widen(torch.cat([ratio, tied.to(ratio)]), turn=True)[:, None]  # a beginning for what is far inside
    ratio = relax(torch.where(tied, ratio, total / weight.clamp_min(1e-9)), unseen, tied)
    return torch.where(unseen, torch.where(sound, guess, torch.inf) / ratio.clamp_min(1e-9), distance)


def revived(scene: SceneSettings, content: dict[str, Any], device: torch.device) -> tuple[Field, Pool]:
    """The field and the pool of a checkpoint; the room for the field is made anew, fit by fit as it was made."""
    training = content["training"]
    pool = Pool.restored(training["sup_pool"], device)
    whole = pool.views
    made = scene.field()
    for count in range(1, len(whole) + 1):
        made.start(Pool(whole[:count]))
    made.load_state_dict({name: value.to(device) for name, value in content["state_dict"].items()})
    return made, pool


def _seed(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1)[0])


def _cleaned(mask: Tensor) -> Tensor:  # [1, H, W]
    """Small gaps closed by a dilation, then borders taken off by a wider erosion, both with discs."""
    grown = _disc(mask.float(), DILATION) > 0.5
    return _disc((~grown).float(), EROSION) < 0.5


def _disc(mask: Tensor, across: int) -> Tensor:
    reach = across // 2
    steps = torch.arange(-reach, reach + 1, device=mask.device)
    disc = (steps[:, None].square() + steps[None].square() <= (reach + 0.25) ** 2).to(mask)
    total = F.conv2d(sphere.pad_erp(mask, min(reach, min(mask.shape[-2:])))[None], disc[None, None])[0]
    return (total > 0.5).to(mask)
