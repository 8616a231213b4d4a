"""What each stage takes and returns; read top to bottom, this is the pipeline."""

from pathlib import Path
from typing import Protocol, runtime_checkable

from ..scene import Aligned, Geometry, Panorama, Prediction, Views


class Enhance(Protocol):
    """Make the picture easier to read for the networks."""

    def __call__(self, panorama: Panorama) -> Panorama: ...


class Project(Protocol):
    """Cut the panorama into views."""

    def __call__(self, panorama: Panorama) -> Views: ...


class Predict(Protocol):
    """Look at every view."""

    def __call__(self, views: Views) -> Prediction: ...


@runtime_checkable
class Loading(Protocol):
    """A stage that needs weights."""

    def load(self) -> None:
        """Read the weights now rather than at the first look."""
        ...


class Fuse(Protocol):
    """Join the predictions of several models."""

    def __call__(self, predictions: dict[str, Prediction]) -> Prediction: ...


class Align(Protocol):
    """Find what each view's numbers mean so that all views agree."""

    def __call__(self, prediction: Prediction) -> Aligned: ...


class Blend(Protocol):
    """Join the views on the sphere."""

    def __call__(self, aligned: Aligned, size: tuple[int, int]) -> Geometry: ...


class Refine(Protocol):
    """Improve the geometry."""

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry: ...


class Segment(Protocol):
    """Say which parts can be trusted, and what belongs together."""

    def __call__(self, geometry: Geometry, panorama: Panorama) -> Geometry: ...


class Export(Protocol):
    """Write files and name them."""

    def __call__(self, geometry: Geometry, panorama: Panorama, folder: Path) -> list[Path]: ...
