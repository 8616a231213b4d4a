"""The loop: it learns, stops, continues to the same bits, and records what it does."""

import errno
import functools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from immersivedepth.checks import ConfigError, InputError, ResourceError, WeightsError
from immersivedepth.data import images
from immersivedepth.training import Trainer, checkpoints
from immersivedepth.training.broken import Diverged
from immersivedepth.training.checkpoints import Position
from immersivedepth.training.interrupts import STOPS
from immersivedepth.training.loop import Loop
from immersivedepth.training.records import Records, read_rows
from immersivedepth.weights import read

from .toy import Endless, Numbers, Toy

ROOT = Path(__file__).parents[2]
ADAM = functools.partial(torch.optim.Adam, lr=0.01)


def trainer(**settings):
    given = {"optimiser": ADAM, "epochs": 3, "batch_size": 8, "workers": 0, "kind": "cpu", "log_every": 1}
    return Trainer(**{**given, **settings})


def figures(folder, split="val", whole=True):
    return [row for row in read_rows(folder / "metrics.jsonl") if row["split"] == split and row["whole"] == whole]


def equal(a, b):
    """Whether two checkpoints hold the same bits."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b or (isinstance(a, float) and math.isnan(a) and math.isnan(b))


class Stopping(Toy):
    """Ends the process's run after so many steps, as a kill would."""

    def __init__(self, after, **settings):
        super().__init__(**settings)
        self.after, self.taken = after, 0

    @property
    def name(self):
        return "Toy"

    def losses(self, outputs, batch):
        if torch.is_grad_enabled():
            self.taken += 1
            if self.taken > self.after:
                raise KeyboardInterrupt
        return super().losses(outputs, batch)


def test_it_learns(tmp_path):
    found = trainer(epochs=40).fit(Toy(dropout=0.0), Numbers(), tmp_path)
    losses = [row["loss"] for row in figures(tmp_path)]
    assert losses[-1] < 0.2 * losses[0]
    assert found.position.best == min(losses)
    assert {p.name for p in found.files} == {"best.ckpt", "last.ckpt", "metrics.csv", "metrics.jsonl"}


VARIANTS = {
    "plain": {},
    "momentum": {"optimiser": functools.partial(torch.optim.SGD, lr=0.01, momentum=0.9)},
    "mean of weights": {"ema": 0.9},
    "parts": {"accumulate": 2},
    "clipped": {"clip_norm": 0.5},
    "schedule by step": {
        "scheduler": functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=9),
        "schedule": "step",
    },
    "milestones": {"scheduler": functools.partial(torch.optim.lr_scheduler.MultiStepLR, milestones=[1, 2])},
    "plateau": {
        "scheduler": functools.partial(torch.optim.lr_scheduler.ReduceLROnPlateau, patience=0, threshold=10.0),
        "schedule": "monitor",
    },
    "bfloat16": {"precision": "bf16"},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("stream", [False, True])
def test_a_continued_run_ends_with_the_same_bits(tmp_path, variant, stream):
    settings = {"save_every": 1, "epoch_samples": 24, **VARIANTS[variant]}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trainer(**settings).fit(Toy(stream=stream), Numbers(), whole, seed=5)
    parts = settings.get("accumulate", 1)
    for after in (1, 3, 3, 1):  # kills in the middle and at the ends of epochs of three steps
        with pytest.raises(KeyboardInterrupt):
            trainer(**settings).fit(Stopping(after * parts, stream=stream), Numbers(), cut, seed=5, continued=True)
    trainer(**settings).fit(Toy(stream=stream), Numbers(), cut, seed=5, continued=True)
    for name in ("last.ckpt", "best.ckpt"):
        a, b = (checkpoints.load(folder / "checkpoints" / name) for folder in (whole, cut))
        assert equal(a, b), name
    assert figures(whole, "train", False) == figures(cut, "train", False)
    assert figures(whole) == figures(cut)
    assert (whole / "metrics.csv").read_text() == (cut / "metrics.csv").read_text()


def test_workers_and_processes_do_not_change_the_samples(tmp_path):
    trainer().fit(Toy(), Numbers(), tmp_path / "a")
    trainer(workers=2).fit(Toy(), Numbers(), tmp_path / "b")
    assert figures(tmp_path / "a") == figures(tmp_path / "b")


def test_parts_of_a_step_are_the_whole_step(tmp_path):
    plain = {"norm": False, "dropout": 0.0}
    for parts in (1, 4):
        trainer(accumulate=parts).fit(Toy(**plain), Numbers(), tmp_path / str(parts))
    one, four = (read(tmp_path / str(p) / "checkpoints/last.ckpt") for p in (1, 4))
    for name, value in one.items():
        assert (value - four[name]).abs().max() < 1e-5, name  # sums in another order


def half_precision():
    """float16 on the CPU, with a scale that grows every second step."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins import MixedPrecision

    scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
    fabric = Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])
    fabric.launch()
    return fabric


def test_the_scale_of_half_precision_goes_on(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    trainer().fit(Toy(), Numbers(), whole, fabric=half_precision())
    with pytest.raises(KeyboardInterrupt):
        trainer(save_every=1).fit(Stopping(5), Numbers(), cut, fabric=half_precision())
    trainer(save_every=1).fit(Toy(), Numbers(), cut, fabric=half_precision(), continued=True)
    a, b = (checkpoints.load(folder / "checkpoints/last.ckpt") for folder in (whole, cut))
    assert a["training"]["scaler"]["scale"] > 64
    assert equal(a, b)


def test_checkpoints_hold_the_weights_to_use(tmp_path):
    found = trainer(ema=0.5).fit(Toy(), Numbers(), tmp_path)
    state = read(tmp_path / "checkpoints/last.ckpt")
    assert equal(state, dict(found.net.state_dict()))
    raw = checkpoints.load(tmp_path / "checkpoints/last.ckpt")["training"]["net"]
    assert not equal(state, raw)


def test_initial_weights(tmp_path):
    trainer().fit(Toy(), Numbers(), tmp_path / "a")
    start = tmp_path / "a/checkpoints/best.ckpt"
    frozen = functools.partial(torch.optim.SGD, lr=0.0)
    trainer(optimiser=frozen, epochs=1, init_from=str(start)).fit(Toy(norm=True), Numbers(), tmp_path / "b")
    a, b = read(start), read(tmp_path / "b/checkpoints/last.ckpt")
    assert all(torch.equal(a[k], b[k]) for k in a if "running" not in k and "tracked" not in k)
    with pytest.raises(WeightsError, match="does not fit"):
        trainer(init_from=str(start)).fit(Toy(norm=False), Numbers(), tmp_path / "c")


def test_the_records_can_be_read(tmp_path):
    trainer(epochs=2).fit(Toy(), Numbers(), tmp_path)
    lines = (tmp_path / "metrics.csv").read_text().splitlines()
    assert len(lines) == 3
    assert {"epoch", "step", "train_loss", "val_loss", "val_rmse", "val_loss/square"} <= set(lines[0].split(","))
    steps = figures(tmp_path, "train", whole=False)
    assert [row["step"] for row in steps] == [1, 2, 3, 4, 5, 6]
    assert all(row["loss"] == pytest.approx(row["loss/square"] + row["loss/absolute"]) for row in steps)
    sheet = images.read_image(tmp_path / "pictures/epoch_0002.png").image
    assert sheet.shape[0] == 3
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(tmp_path / "tensorboard"))
    board.Reload()
    assert [event.step for event in board.Scalars("train/loss")] == [1, 2, 3, 4, 5, 6]
    assert "samples" in board.Tags()["images"]


def test_means_are_those_of_all_samples(tmp_path):
    """Ten samples in batches of eight: the mean is not the mean of two batches."""
    found = trainer(epochs=1, validation_size=8).fit(Toy(dropout=0.0), Numbers(), tmp_path)
    data = Numbers(10, 0.0)
    batch = [data.sample(i, np.random.default_rng(0)) for i in range(10)]
    found.net.eval()
    with torch.no_grad():
        out = found.net(torch.stack([s["x"] for s in batch]))
    square = ((out - torch.stack([s["y"] for s in batch])) ** 2).mean()
    (row,) = figures(tmp_path)
    assert row["rmse"] == pytest.approx(float(square.sqrt()), rel=1e-5)


def test_it_stops_early(tmp_path):
    frozen = functools.partial(torch.optim.SGD, lr=0.0)
    found = trainer(optimiser=frozen, epochs=50, patience=2).fit(Toy(norm=False), Numbers(), tmp_path)
    assert found.position.epoch == 3  # the first is best, two more bring nothing


def test_steps_end_it_too(tmp_path):
    found = trainer(epochs=50, steps=4).fit(Toy(), Numbers(), tmp_path)
    assert found.position.step == 4
    assert len(figures(tmp_path)) == 2


def test_a_few_batches_over_and_over(tmp_path):
    found = trainer(epochs=150, overfit_batches=1, optimiser=functools.partial(torch.optim.Adam, lr=0.03)).fit(
        Toy(dropout=0.0), Numbers(noise=5.0), tmp_path
    )
    assert found.position.step == 150
    losses = [row["loss"] for row in figures(tmp_path, "train")]
    assert losses[-1] < 1e-2 * losses[0]  # noise can only be learnt by heart


def test_a_smoke_run(tmp_path):
    found = trainer(fast=True, epochs=50, workers=2).fit(Toy(), Numbers(), tmp_path)
    assert found.position.step == 2


def test_without_validation_training_decides(tmp_path):
    found = trainer().fit(Toy(validated=False), Numbers(), tmp_path)
    assert found.position.best == min(row["loss"] for row in figures(tmp_path, "train"))


def test_a_loss_that_is_no_number_ends_it(tmp_path):
    with pytest.raises(Diverged, match="lower trainer.optimiser.lr"):
        trainer(optimiser=functools.partial(torch.optim.SGD, lr=1e30), epochs=9).fit(
            Toy(norm=False), Numbers(), tmp_path
        )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_sample_ends_it_with_its_own_words(tmp_path, workers):
    with pytest.raises(InputError, match="^sample 3 is damaged$"):
        trainer(workers=workers).fit(Toy(), Numbers(broken=3), tmp_path)


@pytest.mark.parametrize(
    ("settings", "system", "words"),
    [
        ({"batch_size": 7, "accumulate": 2}, Toy(), "multiple of devices"),
        ({"monitor": "beauty"}, Toy(), "measures.*rmse"),
        ({}, Toy(stream=True), "epoch_samples has no value"),
        ({"kind": "cuda"}, Toy(), "finds none; it finds"),
    ],
)
def test_mistakes_are_told(tmp_path, settings, system, words):
    if settings.get("kind") == "cuda" and torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(ConfigError, match=words):
        trainer(**settings).fit(system, Numbers(), tmp_path)


def test_another_systems_checkpoint_is_not_continued(tmp_path):
    trainer(epochs=1).fit(Toy(), Numbers(), tmp_path)

    class Other(Toy):
        pass

    with pytest.raises(ConfigError, match="is of Toy, not of Other"):
        trainer().fit(Other(), Numbers(), tmp_path, continued=True)
    with pytest.raises(ConfigError, match="does not fit this config"):
        trainer().fit(Toy(norm=False), Numbers(), tmp_path, continued=True)


def test_phases_start_fresh_and_carry_what_they_need(tmp_path):
    trainer(epochs=1).fit(Toy(), Numbers(), tmp_path, phase="first", carry={"pool": torch.ones(3), "round": 1})
    carry = {"pool": None, "round": 0}
    trainer(epochs=1).fit(Toy(), Numbers(), tmp_path, phase="first", carry=carry, continued=True)
    assert carry["round"] == 1
    assert torch.equal(carry["pool"], torch.ones(3))
    found = trainer(epochs=1).fit(Toy(), Numbers(), tmp_path, phase="second", continued=True)
    assert found.position.step == 3
    assert checkpoints.load(tmp_path / "checkpoints/last.ckpt")["training"]["phase"] == "second"


def test_a_foreign_file_is_no_checkpoint(tmp_path):
    torch.save({"state_dict": {"a": torch.ones(1)}}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="no checkpoint of this training loop"):
        checkpoints.load(tmp_path / "a.pt")


def test_a_torn_line_of_the_records_is_dropped(tmp_path):
    trainer(epochs=1).fit(Toy(), Numbers(), tmp_path)
    path = tmp_path / "metrics.jsonl"
    rows = read_rows(path)
    path.write_text(path.read_text()[:-9])
    assert read_rows(path) == rows[:-1]


@pytest.mark.parametrize("limit", [{}, {"steps": 8}])
def test_what_follows_the_last_step_is_made_up_for(tmp_path, monkeypatch, limit):
    """Killed after the last step was saved and before the last validation."""
    settings = {"save_every": 1, **limit}
    trainer(**settings).fit(Toy(), Numbers(), tmp_path / "whole")
    validate = Loop._validate

    def killed(self, figures):
        if self.position.epoch == 2:
            raise KeyboardInterrupt
        validate(self, figures)

    monkeypatch.setattr(Loop, "_validate", killed)
    with pytest.raises(KeyboardInterrupt):
        trainer(**settings).fit(Toy(), Numbers(), tmp_path / "cut")
    monkeypatch.undo()
    trainer(**settings).fit(Toy(), Numbers(), tmp_path / "cut", continued=True)
    for name in ("last.ckpt", "best.ckpt"):
        whole, cut = (checkpoints.load(tmp_path / where / "checkpoints" / name) for where in ("whole", "cut"))
        assert equal(whole, cut), name
    assert (tmp_path / "whole/metrics.csv").read_text() == (tmp_path / "cut/metrics.csv").read_text()


def test_positions_survive_a_file(tmp_path):
    position = Position(3, 1, 10, 0.5, 2, 1, {"loss": (1.5, 8.0)})
    checkpoints.save(tmp_path / "a.ckpt", {"w": torch.ones(1)}, position)
    assert checkpoints.load(tmp_path / "a.ckpt")["training"]["position"] == position


@pytest.mark.parametrize(
    ("where", "write"),
    [
        ("torch.save", lambda path: checkpoints.save(path, {"w": torch.ones(1)}, Position())),
        ("OpenEXR.File", lambda path: images.write_exr(path.with_suffix(".exr"), torch.ones(1, 2, 4))),
    ],
)
@pytest.mark.parametrize("worker", [True, False])
def test_a_reader_that_dies_while_a_file_is_written_is_not_taken_for_a_full_disk(
    tmp_path, monkeypatch, where, write, worker
):
    """A signal tells of it, wherever the loop happens to be."""

    def interrupted(*_):
        raise RuntimeError(
            "DataLoader worker (pid 7) is killed by signal: Killed." if worker else "unexpected pos 64 vs 0"
        )

    monkeypatch.setattr(where, interrupted)
    with pytest.raises(RuntimeError if worker else ResourceError, match="worker" if worker else "unexpected pos"):
        write(tmp_path / "a.ckpt")
    assert list(tmp_path.iterdir()) == []


# ---- the command line --------------------------------------------------------------------------------------------


def command(base, *more, system="toy"):
    chosen = [f"system={system}"] if system else []
    start = [sys.executable, "core_exp_runner.py", "--config-dir", str(ROOT / "tests/training/conf"), "mode=train"]
    return [*start, *chosen, f"device.base_exp_dir={base}", *more]


def environment():
    return {**os.environ, "IMMERSIVEDEPTH_TRUST": "tests.", "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(base, *more, system="toy"):
    return subprocess.run(
        command(base, *more, system=system),
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


def test_train_evaluate_and_rates_from_the_command_line(tmp_path):
    done = run(tmp_path, "trainer.epochs=2")
    assert done.returncode == 0, done.stderr
    named = [Path(line) for line in done.stdout.splitlines()]
    assert {"best.ckpt", "last.ckpt", "metrics.csv"} <= {path.name for path in named}
    assert all(path.is_file() for path in named)
    judged = run(tmp_path, "mode=evaluate")
    assert judged.returncode == 0, judged.stderr
    (record,) = tmp_path.rglob("evaluation.json")
    last = json.loads(record.read_text())
    rows = read_rows(next(tmp_path.rglob("metrics.jsonl")))
    best = min(row["loss"] for row in rows if row["split"] == "val")
    assert last["loss"] == pytest.approx(best, rel=1e-6)
    assert "rmse = " in judged.stdout


def test_rates_from_the_command_line(tmp_path):
    done = run(tmp_path, "mode=lr_range", "lr_range.steps=40", "lr_range.low=1e-5")
    assert done.returncode == 0, done.stderr
    assert {Path(line).name for line in done.stdout.splitlines()[:2]} == {"lr_range.csv", "lr_range.png"}


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ([], 2, "mode=train needs a system"),
        (["mode=evaluate"], 4, "holds no trained run"),
        (["trainer.epochs=0"], 2, "trainer.epochs=0: expected a whole number at least 1"),
        (["trainer.optimiser.lrr=1"], 2, "trainer.optimiser.lrr is not a key"),
    ],
)
def test_mistakes_on_the_command_line(tmp_path, more, code, words):
    done = run(tmp_path, *more) if more else run(tmp_path, system=None)
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def wait_for(process, path, seconds=120):
    end = time.monotonic() + seconds
    while not list(path.rglob("last.ckpt")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGUSR1", 138)])
def test_a_signal_saves_and_ends(tmp_path, name, code):
    """Sent to every process of the job, as the keyboard and Slurm do: readers of samples get it too."""
    if not hasattr(signal, name):
        pytest.skip(f"no {name} on this system")
    slow = ("trainer.epochs=400", "dataset.delay=0.02", "trainer.workers=2")
    with subprocess.Popen(
        command(tmp_path, *slow), cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    ) as process:  # fmt: skip
        wait_for(process, tmp_path)
        os.killpg(process.pid, getattr(signal, name))
        _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    (saved,) = tmp_path.rglob("last.ckpt")
    step = checkpoints.load(saved)["training"]["position"].step
    assert step > 0
    again = run(tmp_path, "is_continue=true", f"trainer.steps={step + 2}", "trainer.epochs=400")
    assert again.returncode == 0, again.stderr
    assert checkpoints.load(saved)["training"]["position"].step == step + 2


class Impatient(Toy):
    """Is told to stop once, and a second time, in the middle of a slow step."""

    def losses(self, outputs, batch):
        if torch.is_grad_enabled():
            self.taken = getattr(self, "taken", 0) + 1
            if self.taken == 5:
                os.kill(os.getpid(), signal.SIGTERM)
                threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
                time.sleep(30)
        return super().losses(outputs, batch)


def test_a_second_signal_ends_a_slow_step_at_once(tmp_path):
    before = [signal.getsignal(number) for number in STOPS]
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        trainer(save_every=1).fit(Impatient(), Numbers(), tmp_path)
    assert ended.value.code == 130
    assert time.monotonic() - begun < 20
    assert [signal.getsignal(number) for number in STOPS] == before
    assert checkpoints.load(tmp_path / "checkpoints/last.ckpt")["training"]["position"].step == 4
    assert not list(tmp_path.rglob("*.part*"))


@pytest.mark.slow
def test_two_processes_do_what_one_does(tmp_path):
    """The same global batch over two processes: the same weights but for the order of sums."""
    plain = ("trainer.epochs=3", "system.norm=false", "system.dropout=0.0")
    one = run(tmp_path / "one", *plain)
    assert one.returncode == 0, one.stderr
    two = run(tmp_path / "two", *plain, "trainer.devices=2")
    assert two.returncode == 0, two.stderr
    assert len(list((tmp_path / "two").rglob("run.json"))) == 1
    a, b = (read(next((tmp_path / name).rglob("last.ckpt"))) for name in ("one", "two"))
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-5
    rows = [[r for r in read_rows(next((tmp_path / n).rglob("metrics.jsonl"))) if r["whole"]] for n in ("one", "two")]
    assert len(rows[0]) == len(rows[1])
    for x, y in zip(*rows, strict=True):
        assert x["loss"] == pytest.approx(y["loss"], rel=1e-4)


def test_endless_data_is_a_function_of_its_number():
    a, b = (Endless().batch(3, 4, torch.device("cpu")) for _ in range(2))
    assert torch.equal(a["x"], b["x"])


@pytest.mark.slow
def test_torchrun_starts_it_too(tmp_path):
    """Both processes write to one run folder, and the figures are those of one."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", *command(tmp_path)[1:],
         "trainer.devices=2"],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (rows,) = [read_rows(path) for path in tmp_path.rglob("metrics.jsonl")]
    assert [row["epoch"] for row in rows if row["split"] == "val"] == [1, 2]


def test_a_full_disk_under_tensorboard_is_raised_once_and_prints_nothing(tmp_path, monkeypatch, capsys):
    heard = []
    monkeypatch.setattr(threading, "excepthook", heard.append)
    records = Records(tmp_path, Position())
    inner = records._board.file_writer.event_writer._async_writer._writer

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(inner, "write", full)
    monkeypatch.setattr(inner, "flush", full)

    def note():
        for step in range(1000):
            records.note("train", Position(step=step), {"loss": 1.0}, whole_epoch=False)
            time.sleep(0.01)

    with pytest.raises(OSError, match="No space"):
        note()
    assert heard == []
    assert "Traceback" not in capsys.readouterr().err
    other = threading.Thread(target=full)  # faults of others are told as before
    other.start()
    other.join()
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("precision", "fast", "wanted"),
    [
        ("auto", False, "32-true"),
        ("auto", True, "bf16-mixed"),
        ("bf16", False, "bf16-mixed"),
        ("fp32", True, "32-true"),
    ],
)
def test_auto_learns_in_bfloat16_where_that_is_fast(precision, fast, wanted, monkeypatch):
    monkeypatch.setattr("immersivedepth.hardware.fast_bfloat16", lambda _: fast)
    assert trainer(precision=precision).launch().strategy.precision.precision == wanted
