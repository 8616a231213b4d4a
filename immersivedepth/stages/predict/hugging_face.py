"""Any depth model of the transformers library looks at every view."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ...checks import ConfigError, WeightsError
from ...geometry import pinhole
from ...scene import Kind, Prediction, Views
from ...weights import Weights
from .running import Runner, Running

_KINDS = {
    "disparity": Kind.AFFINE_DISPARITY,
    "depth": Kind.AFFINE_DEPTH,
    "metric": Kind.METRIC_DISTANCE,
}
_SHORTEST = 1e-3  # metres: resizing by a cubic overshoots at edges, and no surface is nearer to a camera than this


@dataclass
class HuggingFace:
    """A model of AutoModelForDepthEstimation, by its id on the hub (with a pinned revision) or its local folder.

    What the model's numbers mean is not written in it: `kind` says it. Code from the hub is never run, and weights
    are read from safetensors alone.
    """

    model: str
    kind: Literal["disparity", "depth", "metric"]
    revision: str | None = None  # the commit on the hub; null for a local folder
    running: Running = field(default_factory=Running)
    settings: Weights = field(default_factory=Weights)

    def load(self) -> None:
        """Build the network and read its weights now rather than at the first look."""
        _ = self._runner

    def __call__(self, views: Views) -> Prediction:
        rig = views.rig
        values = self._runner(views.images, self._prepare, self._restore(views))[:, None]
        if self.kind == "metric":
            rays = pinhole.view_rays(rig.rotation, rig.tan_half_fov, rig.resolution)
            values = values.clamp_min(_SHORTEST) * rays.norm(dim=-1)[:, None].to(values)
        return Prediction(values, (_KINDS[self.kind],) * len(rig), rig, models=(self.model,) * len(rig))

    def _prepare(self, images: Tensor) -> Tensor:
        floating = {"do_rescale": False} if images.is_floating_point() else {}
        pixels: Tensor = self._processor(images=list(images), return_tensors="pt", **floating)["pixel_values"]
        return pixels.to(images.device)

    def _restore(self, views: Views) -> Any:
        from transformers.modeling_outputs import DepthEstimatorOutput

        size = (views.rig.resolution, views.rig.resolution)
        process = self._processor.post_process_depth_estimation
        padded = "source_sizes" in inspect.signature(process).parameters  # models that look beyond the border

        def restore(maps: Tensor) -> Tensor:  # [B, h, w]
            sizes: dict[str, Any] = {"source_sizes": [size] * len(maps)} if padded else {}
            outputs = DepthEstimatorOutput(predicted_depth=maps)
            found = process(outputs, target_sizes=[size] * len(maps), **sizes)
            return torch.stack([each["predicted_depth"] for each in found])

        return restore

    @cached_property
    def _origin(self) -> dict[str, Any]:
        """Where transformers is to look, and what it may do there."""
        if Path(self.model).expanduser().is_dir():
            return {"pretrained_model_name_or_path": str(Path(self.model).expanduser()), "local_files_only": True}
        if self.revision is None:
            raise ConfigError(
                f"predict.hugging_face.model={self.model} is no local folder: for a model on the hub set "
                "predict.hugging_face.revision to the commit to use"
            )
        return {
            "pretrained_model_name_or_path": self.model,
            "revision": self.revision,
            "local_files_only": self.settings.offline,
        }

    @cached_property
    def _processor(self) -> Any:
        processor = self._obtain("AutoImageProcessor", "an image processor")
        if not hasattr(processor, "post_process_depth_estimation"):
            raise ConfigError(f"{self.model}: its {type(processor).__name__} is not one of a depth model")
        return processor

    @cached_property
    def _runner(self) -> Runner:
        model, info = self._obtain(
            "AutoModelForDepthEstimation", "a depth model", use_safetensors=True, output_loading_info=True
        )
        # The library only warns of these, and fills in random numbers.
        if lacking := sorted([*info["missing_keys"], *(str(key[0]) for key in info["mismatched_keys"])]):
            raise WeightsError(
                f"{self.model}: its weights lack or misfit {len(lacking)} tensors ({', '.join(lacking[:3])}); "
                "fetch or save the model anew"
            )
        return Runner(_PredictedDepth(model.float()), self.running)

    def _obtain(self, loader: str, what: str, **options: Any) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise ConfigError("predict=[hugging_face] needs transformers: pip install immersivedepth[hf]") from error
        try:
            return getattr(transformers, loader).from_pretrained(**self._origin, trust_remote_code=False, **options)
        except (OSError, ValueError, KeyError) as error:
            said = str(error).strip().splitlines() or [type(error).__name__]
            raise WeightsError(
                f"predict.hugging_face.model={self.model} cannot be loaded as {what}: {said[0]}"
            ) from error


class _PredictedDepth(nn.Module):
    """A depth model with its one map as its output."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:  # [B, h, w]
        depth: Tensor = self.model(pixel_values=pixels).predicted_depth
        return depth
