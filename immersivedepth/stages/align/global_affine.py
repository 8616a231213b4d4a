"""One scale and one shift per view, from overlaps alone."""

from dataclasses import dataclass, field
from typing import Annotated

from ...checks import Range
from ...scene import Aligned, Prediction
from .anchors import Anchors
from .outcome import to_aligned
from .solver import Equations, find_overlap, solve_rigid, standardise


@dataclass
class GlobalAffine:
    """Robust joint solve for scale and shift of all views; the shift is observable because cosines differ."""

    samples: Annotated[int, Range(100)] = 12000  # directions, shared by the views
    robustness: Annotated[float, Range(0.5)] = 3.0  # residuals beyond so many standard deviations count little
    anchors: Anchors = field(default_factory=Anchors)

    def __call__(self, prediction: Prediction) -> Aligned:
        """Solve, then bring every map to the common scale."""
        maps = standardise(prediction)
        overlap = find_overlap(prediction.rig, self.samples)
        equations = Equations(maps, overlap, prediction.confidence, degree=0)
        solution = solve_rigid(equations, self.robustness)
        return to_aligned(prediction, maps, equations, solution, self.anchors, "global_affine")
