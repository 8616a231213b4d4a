"""Recorded outputs of the original networks under the weights of recipe.py, and the comparison with them.

goldens/<model>.npz holds for every case ("70x98" is height x width of the input): `out`, or for large maps every 4th
or 8th row and column (`out_s4`, `out_s8`) and the 32x32 centre (`out_crop`); `shape` and `stats` (mean, standard
deviation, min, max) of the whole output; `blocks`, the same four numbers after every encoder block; `tap/<module>`, 256
evenly strided values of that module's output, with `tapshape` and `tapstats`.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

GOLDENS = Path(__file__).parent / "goldens"

# Different thread counts and fused attention move the originals themselves by up to 1.3e-5 of the output's standard
# deviation, the smallest known mistake (a wrong epsilon) moves them by 4.5e-5: the bounds lie between the two.
MAX_ERROR = 3e-5
RMS_ERROR = 6e-6


class Golden:
    """The recorded numbers of one model."""

    def __init__(self, model: str) -> None:
        with np.load(GOLDENS / f"{model}.npz") as archive:
            self.arrays: dict[str, NDArray[Any]] = dict(archive)

    @property
    def cases(self) -> list[str]:
        """Names of the recorded inputs."""
        return list(dict.fromkeys(key.split("/")[0] for key in self.arrays))

    def std(self, case: str) -> float:
        """Standard deviation of the recorded output, the unit of all tolerances."""
        return float(self.arrays[f"{case}/stats"][1])

    def check(
        self, case: str, output: Tensor, max_error: float = MAX_ERROR, rms_error: float = RMS_ERROR
    ) -> tuple[float, float]:
        """Compare an output of shape [1, ..., h, w] with the record; return the largest and the rms error in std."""
        record = {name.split("/", 1)[1]: value for name, value in self.arrays.items() if name.startswith(f"{case}/out")}
        assert list(output.shape) == self.arrays[f"{case}/shape"].tolist(), (case, output.shape)
        whole = output.detach().double().cpu().numpy()[0]
        h, w = whole.shape[-2:]
        pieces = {
            "out": whole,
            "out_s4": whole[..., ::4, ::4],
            "out_s8": whole[..., ::8, ::8],
            "out_crop": whole[..., h // 2 - 16 : h // 2 + 16, w // 2 - 16 : w // 2 + 16],
        }
        assert record, f"no output recorded for {case}"
        off = np.concatenate([(pieces[name] - value).ravel() for name, value in record.items()]) / self.std(case)
        worst, rms = float(np.abs(off).max()), float(np.sqrt((off**2).mean()))
        assert worst <= max_error, f"{case}: max error {worst:.2e} std, allowed {max_error:.2e}"
        assert rms <= rms_error, f"{case}: rms error {rms:.2e} std, allowed {rms_error:.2e}"
        return worst, rms

    def check_tap(self, case: str, name: str, value: Tensor, max_error: float = MAX_ERROR) -> None:
        """Compare the output of one module with the record, in units of that output's standard deviation."""
        assert list(value.shape) == self.arrays[f"{case}/tapshape/{name}"].tolist(), (name, value.shape)
        flat = value.detach().double().cpu().contiguous().numpy().ravel()
        n = flat.size
        picked = flat if n <= 256 else flat[np.arange(256) * n // 256]
        std = self.arrays[f"{case}/tapstats/{name}"][1]
        worst = float(np.abs(picked - self.arrays[f"{case}/tap/{name}"].ravel()).max() / std)
        assert worst <= max_error, f"{case} {name}: max error {worst:.2e} std, allowed {max_error:.2e}"

    def check_blocks(self, case: str, outputs: list[Tensor], max_error: float = MAX_ERROR) -> None:
        """Compare mean, std, min and max of every encoder block; the first one that differs is named."""
        record = self.arrays[f"{case}/blocks"]
        assert len(outputs) == len(record), (len(outputs), len(record))
        for i, (value, row) in enumerate(zip(outputs, record, strict=True)):
            v = value.detach().double().cpu().numpy()
            worst = float(np.abs(np.array([v.mean(), v.std(), v.min(), v.max()]) - row).max() / row[1])
            assert worst <= max_error, f"{case} block {i}: statistics differ by {worst:.2e} std"
