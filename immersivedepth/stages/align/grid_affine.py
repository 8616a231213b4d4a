"""Scale and shift per view, and a smooth bending of every view on top."""

from dataclasses import dataclass, field
from typing import Annotated

from ...checks import Range
from ...scene import Aligned, Prediction
from .anchors import Anchors
from .outcome import to_aligned
from .solver import Equations, find_overlap, solve, solve_rigid, standardise

ROUGHLY = 1e-3  # of log scale and shift: enough for the rigid solve that the bending starts from


@dataclass
class GridAffine:
    """Deformable alignment: a field of log scale per view whose stiffness is found from the overlaps themselves.

    The field is a polynomial of the two image coordinates, smoother than bilinear grids at fewer unknowns.
    """

    degree: Annotated[int, Range(4, 12)] = 7  # of the polynomial
    samples: Annotated[int, Range(100)] = 4000  # directions, shared by the views
    robustness: Annotated[float, Range(0.5)] = 3.0  # residuals beyond so many standard deviations count little
    anchors: Anchors = field(default_factory=Anchors)

    def __call__(self, prediction: Prediction) -> Aligned:
        """Solve for scale and shift, then for all together, and bring every map to the common scale."""
        maps = standardise(prediction)
        overlap = find_overlap(prediction.rig, self.samples)
        rigid = Equations(maps, overlap, prediction.confidence, degree=0)
        stiff = solve_rigid(rigid, self.robustness, ROUGHLY)
        equations = Equations(maps, overlap, prediction.confidence, self.degree)
        solution = solve(equations, stiff, self.robustness, turns=7)
        return to_aligned(prediction, maps, equations, solution, self.anchors, "grid_affine")
