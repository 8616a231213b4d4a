"""Things as a mask network sees them in views, joined on the sphere. The networks are those of other libraries."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor

from ...checks import ConfigError, Range, WeightsError
from ...geometry import pinhole, segments, sphere
from ...scene import Geometry, Instances, Panorama, Rig, unit_image
from ...weights import Weights, reading
from ..predict.running import Running
from ..project import Icosahedron
from .valid_geometry import ValidGeometry

_SAME = 0.3  # overlap (IoU, where both views look) from which on two views show one thing
_ROWS = 128  # of the sphere on which detections are compared
_MOST_CLASSES = 254  # what the written form can tell apart


class Detection(NamedTuple):
    """One thing in one view."""

    view: int
    mask: Tensor  # [h, w], bool
    kind: int  # class, from 1
    score: float


@dataclass
class TorchvisionMasks:
    """Mask R-CNN of torchvision, with weights from a file in its format; classes are those of COCO."""

    weights: str
    running: Running = field(default_factory=Running)
    valid: ValidGeometry = field(default_factory=ValidGeometry)
    project: Icosahedron = field(default_factory=Icosahedron)
    least_score: Annotated[float, Range(0, 1)] = 0.5

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Look at every view, then join."""
        views = self.project(panorama)
        return _finish(self, geometry, panorama, join(self._look(views.images), views.rig, panorama.size, self._names))

    @torch.no_grad()
    def _look(self, images: Tensor) -> Iterable[Detection]:
        for view, image in enumerate(images):
            found = self._net([unit_image(image).to(self.running.device())])[0]
            for mask, kind, score in zip(found["masks"], found["labels"], found["scores"], strict=True):
                if float(score) >= self.least_score:
                    yield Detection(view, mask[0].cpu() > 0.5, int(kind), float(score))

    @cached_property
    def _names(self) -> dict[int, str]:
        from torchvision.models.detection import MaskRCNN_ResNet50_FPN_V2_Weights

        return dict(enumerate(MaskRCNN_ResNet50_FPN_V2_Weights.DEFAULT.meta["categories"]))

    @cached_property
    def _net(self) -> Any:
        from torchvision.models.detection import maskrcnn_resnet50_fpn_v2

        file = Path(self.weights).expanduser()
        if not file.is_file():
            raise WeightsError(
                f"segment.weights={self.weights} not found. Put torchvision's maskrcnn_resnet50_fpn_v2 weights there, "
                "or run with segment=convex_parts, which needs none."
            )
        net = maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
        reading.fit(net, reading.read(file), what=self.weights, key="segment.torchvision_masks wants Mask R-CNN v2")
        return net.to(self.running.device()).eval()


@dataclass
class TransformersMasks:
    """A model of AutoModelForUniversalSegmentation (Mask2Former, MaskFormer, EoMT...), by folder or pinned hub id.

    Code from the hub is never run, and weights are read from safetensors alone.
    """

    model: str
    revision: str | None = None
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)
    valid: ValidGeometry = field(default_factory=ValidGeometry)
    project: Icosahedron = field(default_factory=Icosahedron)
    least_score: Annotated[float, Range(0, 1)] = 0.5

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry:
        """Look at every view, then join."""
        views = self.project(panorama)
        names = {int(kind) + 1: str(name) for kind, name in self._net.config.id2label.items()}
        return _finish(self, geometry, panorama, join(self._look(views.images), views.rig, panorama.size, names))

    @torch.no_grad()
    def _look(self, images: Tensor) -> Iterable[Detection]:
        device, size = self.running.device(), tuple(images.shape[-2:])
        for view, image in enumerate(images):
            floating = {"do_rescale": False} if image.is_floating_point() else {}
            pixels = self._processor(images=[image], return_tensors="pt", **floating)["pixel_values"].to(device)
            found = self._processor.post_process_instance_segmentation(
                self._net(pixel_values=pixels), threshold=self.least_score, target_sizes=[size]
            )[0]
            for each in found["segments_info"]:
                mask = found["segmentation"].cpu() == each["id"]
                yield Detection(view, mask, int(each["label_id"]) + 1, float(each["score"]))

    @cached_property
    def _processor(self) -> Any:
        processor = self._obtain("AutoImageProcessor", "an image processor")
        if not hasattr(processor, "post_process_instance_segmentation"):
            raise ConfigError(f"segment.model={self.model}: its {type(processor).__name__} gives no instances")
        return processor

    @cached_property
    def _net(self) -> Any:
        net, info = self._obtain(
            "AutoModelForUniversalSegmentation", "a mask model", use_safetensors=True, output_loading_info=True
        )
        if lacking := sorted([*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])]):
            raise WeightsError(
                f"{self.model}: its weights lack or misfit {len(lacking)} tensors ({', '.join(lacking[:3])}); "
                "fetch or save the model anew"
            )
        return net.to(self.running.device()).eval()

    def _obtain(self, loader: str, what: str, **options: Any) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise ConfigError(
                "segment=transformers_masks needs transformers: pip install immersivedepth[hf]"
            ) from error
        folder = Path(self.model).expanduser()
        if not folder.is_dir() and self.revision is None:
            raise ConfigError(
                f"segment.model={self.model} is no local folder: for a model on the hub set segment.revision to the "
                "commit to use"
            )
        origin = {"revision": self.revision, "local_files_only": self.settings.offline}
        if folder.is_dir():
            origin = {"revision": None, "local_files_only": True}
        try:
            return getattr(transformers, loader).from_pretrained(
                str(folder) if folder.is_dir() else self.model, trust_remote_code=False, **origin, **options
            )
        except (OSError, ValueError, KeyError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(f"segment.model={self.model} cannot be loaded as {what}: {said[0]}") from error


def _finish(
    stage: TorchvisionMasks | TransformersMasks, geometry: Geometry, panorama: Panorama, found: Instances
) -> Geometry:
    return replace(stage.valid(geometry, panorama), instances=found)


def join(detections: Iterable[Detection], rig: Rig, size: tuple[int, int], names: dict[int, str]) -> Instances:
    """Detections of the same class that cover the same part of the sphere are one thing; the surer ones lie on top."""
    found = [one for one in detections if one.kind <= _MOST_CLASSES and one.mask.any()]
    group = _same_things(found, rig)
    best: dict[int, Detection] = {}
    for one, g in zip(found, group, strict=True):
        if g not in best or one.score > best[g].score:
            best[g] = one
    labels = torch.zeros(size, dtype=torch.int32)
    surest = torch.full(size, -1.0)
    for view in sorted({one.view for one in found}):
        inside, index = _sight(rig, view, size)
        for one, g in zip(found, group, strict=True):
            if one.view == view:
                mask = inside & one.mask.reshape(-1)[index] & (surest < best[g].score)
                labels[mask], surest[mask] = g + 1, best[g].score
    visible = segments.renumber(labels)
    things = [best[int(labels[visible == number][0]) - 1] for number in range(1, int(visible.max()) + 1)]
    kinds = tuple(thing.kind for thing in things)
    return Instances(
        visible[None].to(rig.rotation.device),
        kinds,
        {kind: names.get(kind, str(kind)) for kind in sorted(set(kinds))},
        tuple(round(thing.score, 4) for thing in things),
    )


def _sight(rig: Rig, view: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:  # [H, W], [H, W]
    """Which pixels of a panorama a view sees, and at which of its own."""
    rays = sphere.erp_rays(*size, rig.rotation.device)
    xy, inside = pinhole.project_rays(rays, rig.rotation[view], float(rig.tan_half_fov[view]))
    at = ((xy + 1) / 2 * rig.resolution).long().clamp(0, rig.resolution - 1)
    return inside.cpu(), (at[..., 1] * rig.resolution + at[..., 0]).cpu()


def _same_things(found: list[Detection], rig: Rig) -> list[int]:
    """A number for each detection, the same for those that show one thing."""
    size = (_ROWS, 2 * _ROWS)
    area = sphere.solid_angles(*size).expand(size)
    sight = {view: _sight(rig, view, size) for view in {one.view for one in found}}
    covered = [sight[one.view][0] & one.mask.reshape(-1)[sight[one.view][1]] for one in found]
    group = list(range(len(found)))
    for i, a in enumerate(found):
        for j, b in enumerate(found[:i]):
            if a.kind != b.kind or a.view == b.view:
                continue
            common = covered[i] & covered[j]
            if not common.any():
                continue
            union = area[(covered[i] | covered[j]) & sight[a.view][0] & sight[b.view][0]].sum()
            if area[common].sum() > _SAME * union:
                old, new = group[i], group[j]
                group = [new if g == old else g for g in group]
    return group
