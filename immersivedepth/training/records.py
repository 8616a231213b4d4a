"""What a run leaves to look at: metrics.jsonl, metrics.csv, TensorBoard and pictures of fixed samples."""

from __future__ import annotations

import csv
import io
import json
import math
import threading
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ..data.images import write_png
from ..files import write_text
from ..visual.grids import grid
from .checkpoints import Position


class Records:
    """The files of one run. A continued run drops what was noted after the checkpoint it goes on from."""

    def __init__(self, folder: Path, position: Position) -> None:
        from torch.utils.tensorboard import SummaryWriter  # takes a second to import

        self.folder = folder
        self._lines = folder / "metrics.jsonl"
        self.rows = [row for row in read_rows(self._lines) if _still_true(row, position)]
        write_text(self._lines, "".join(_line(row) for row in self.rows))
        _quiet_writers()
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=position.step + 1)

    def note(self, split: str, position: Position, figures: dict[str, float], *, whole_epoch: bool) -> dict[str, Any]:
        """One row: of a step, or of a whole epoch."""
        row: dict[str, Any] = {"split": split, "epoch": position.epoch + 1, "step": position.step, "whole": whole_epoch}
        row |= {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
        self.rows.append(row)
        with self._lines.open("a", encoding="utf-8") as handle:
            handle.write(_line(row))
        for name, value in figures.items():
            self._board.add_scalar(f"{split}{'_epoch' if whole_epoch else ''}/{name}", value, position.step)
        return row

    def table(self) -> None:
        """Write metrics.csv: one row for each epoch, and columns such as val_loss."""
        epochs: dict[int, dict[str, Any]] = {}
        for row in self.rows:
            if row["whole"]:
                found = epochs.setdefault(row["epoch"], {"epoch": row["epoch"], "step": row["step"]})
                found |= {f"{row['split']}_{k}": v for k, v in row.items() if k not in _HEAD}
        columns = list(dict.fromkeys(name for row in epochs.values() for name in row))
        text = io.StringIO()
        writer = csv.DictWriter(text, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs.values())
        write_text(self.folder / "metrics.csv", text.getvalue())

    def pictures(self, position: Position, panels: dict[str, Tensor]) -> None:
        """One sheet of the fixed samples, as a file and for TensorBoard."""
        if not panels:
            return
        rows = {name: [_bytes(picture) for picture in pictures] for name, pictures in panels.items()}
        sheet = grid(rows)
        write_png(self.folder / "pictures" / f"epoch_{position.epoch + 1:04d}.png", sheet)
        self._board.add_image("samples", sheet, position.step, dataformats="HWC")

    def close(self) -> None:
        self._board.close()


def _quiet_writers() -> None:
    """TensorBoard's thread passes its faults on to whoever writes next; on its own it would print a traceback too."""
    if getattr(threading.excepthook, "quiet", False):
        return
    before = threading.excepthook

    def hook(fault: threading.ExceptHookArgs) -> None:
        if not type(fault.thread).__module__.startswith("tensorboard."):
            before(fault)

    hook.quiet = True  # type: ignore[attr-defined]
    threading.excepthook = hook


_HEAD = ("split", "epoch", "step", "whole")


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; the line that a killed run left half written is dropped."""
    rows = []
    for line in path.read_text("utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and set(_HEAD) <= row.keys():
            rows.append(row)
    return rows


def _still_true(row: dict[str, Any], position: Position) -> bool:
    return bool(row["epoch"] <= position.epoch if row["whole"] else row["step"] <= position.step)


def _line(row: dict[str, Any]) -> str:
    return json.dumps(row) + "\n"


def _bytes(picture: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:  # [3, h, w] -> [h, w, 3]
    return (picture.detach().float().cpu().clamp(0, 1) * 255).round().byte().movedim(0, -1).numpy()
