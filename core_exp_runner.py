"""The command line: `python core_exp_runner.py dataset.image_path=room.jpg`; --help shows every stage and its options.

Exit codes: 0 done, 2 config, 3 input, 4 weights, 5 resources, 130, 138 and 143 interrupted.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

import hydra
from omegaconf import DictConfig

from immersivedepth import config as configs
from immersivedepth import memory
from immersivedepth.checks import ConfigError, InputError
from immersivedepth.command_line import one_line, preflight

log = logging.getLogger("immersivedepth")


def depth(config: dict[str, Any], job: str) -> None:
    """Panorama -> distance, normals, masks and dense 3D."""
    from immersivedepth.batch import depth as estimate_all
    from immersivedepth.runs import RunFolder

    folder, outcomes = estimate_all(config, lambda: RunFolder.open(configs.run_of(config), config, job))
    bad = [o for o in outcomes if o.error]
    for outcome in outcomes:
        if outcome.skipped:
            print(f"{outcome.source}: done before, skipped")
        for path in outcome.files:
            print(path)
    if len(outcomes) > 1:
        print(f"{len(outcomes) - len(bad)} of {len(outcomes)} panoramas done, in {folder.path}")
    for outcome in bad if len(outcomes) > 1 else ():
        print(f"failed: {outcome.error}")
    if bad:
        several = f"{len(bad)} of {len(outcomes)} inputs could not be used; the first: " if len(outcomes) > 1 else ""
        raise InputError(f"{several}{bad[0].error}")


def weights(config: dict[str, Any], job: str) -> None:
    """List the known weights and where they lie, or fetch those that weights.download names."""
    from immersivedepth.weights import download_named, table

    settings = configs.build(config["weights"], "weights")
    if settings.download:
        for path in download_named(settings):
            print(path)
    else:
        print(table(settings))


def train(config: dict[str, Any], job: str) -> None:
    """A system on its data; without a system, the radiance field of a panorama."""
    if config.get("system") is not None or config.get("field") is None:
        trained("train")(config, job)
        return
    from immersivedepth.field import train_field
    from immersivedepth.runs import RunFolder

    for path in train_field(config, lambda: RunFolder.open(configs.run_of(config), config, job))[1]:
        print(path)


def trained(mode: str) -> Callable[[dict[str, Any], str], None]:
    """mode=train, lr_range, and evaluate with a system: it and its data in the training loop."""

    def do(config: dict[str, Any], job: str) -> None:
        from immersivedepth.runs import RunFolder
        from immersivedepth.training import modes

        call = {"train": modes.train, "evaluate": modes.evaluate, "lr_range": modes.rates}[mode]
        result = call(config, lambda: RunFolder.open(configs.run_of(config), config, job))
        if result.main:
            for path in result.files:
                print(path)
            for name, value in (result.figures or {}).items():
                print(f"{name} = {value:.6g}")

    return do


def evaluate(config: dict[str, Any], job: str) -> None:
    """A trained system on the test part of its data; without a system, the pipeline on measured panoramas."""
    if config.get("system") is not None:
        trained("evaluate")(config, job)
        return
    from immersivedepth.evaluation.running import evaluate as measure
    from immersivedepth.runs import RunFolder

    done = measure(config, lambda: RunFolder.open(configs.run_of(config), config, job, alike=True), job)
    for path in done.files:
        print(path)
    for name, figure in done.figures.items():
        between = "" if figure.low is None else f"  [{figure.low:.6g}, {figure.high:.6g}]"
        print(f"{name} = {figure.value:.6g}{between}")
    if done.failed:
        source, wrong = next(iter(done.failed.items()))
        raise InputError(f"{len(done.failed)} images could not be used and are left out; the first: {wrong or source}")


def compare(config: dict[str, Any], job: str) -> None:
    """Evaluated runs in one table and on one page."""
    from immersivedepth.evaluation.compare import compare as tabulate
    from immersivedepth.runs import RunFolder

    for path in tabulate(config, lambda: RunFolder.open(configs.run_of(config), config, job)):
        print(path)


def predict(config: dict[str, Any], job: str) -> None:
    """A trained system on a user's own inputs; a bad one does not stop the others."""
    from immersivedepth.runs import RunFolder
    from immersivedepth.training import modes

    result, outcomes = modes.predict(config, lambda: RunFolder.open(configs.run_of(config), config, job))
    bad = [outcome.error for outcome in outcomes if outcome.error]
    for path in result.files:
        print(path)
    if len(outcomes) > 1:
        print(f"{len(outcomes) - len(bad)} of {len(outcomes)} inputs done, in {result.folder}")
        for error in bad:
            print(f"failed: {error}")
    if bad:
        several = f"{len(bad)} of {len(outcomes)} inputs could not be used; the first: " if len(outcomes) > 1 else ""
        raise InputError(f"{several}{bad[0]}")


def make_data(config: dict[str, Any], job: str) -> None:
    """A miniature data set in a real layout, out of synthetic worlds."""
    for path in configs.build(config["data"], "data")():
        print(path)


def render_dense(config: dict[str, Any], job: str) -> None:
    """Novel views along a path: frames, distances and a film."""
    from immersivedepth.dense import render_dense as film_all
    from immersivedepth.field import fields
    from immersivedepth.runs import RunFolder

    folder, files = film_all(config, lambda: RunFolder.open(configs.run_of(config), config, job), fields(config))
    for path in files:
        if path.suffix in (".mp4", ".json"):
            print(path)
    print(f"{len(files)} files in {folder.path}")


def view(config: dict[str, Any], job: str) -> None:
    """The result of a run in a browser."""
    from immersivedepth.runs import RunFolder
    from immersivedepth.viewer import Viewer

    Viewer.check()
    with Viewer.of(config, lambda: RunFolder.open(configs.run_of(config), config, job)) as viewer:
        print(f"open {viewer.address} in a browser; Ctrl-C ends it", flush=True)
        viewer.wait()


def demo(config: dict[str, Any], job: str) -> None:
    """The page on which people upload panoramas."""
    from immersivedepth.app.serving import Demo

    with Demo.of(config) as page:
        print(f"open {page.address} in a browser; Ctrl-C ends it", flush=True)
        page.wait()


MODES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "depth": depth,
    "weights": weights,
    "train": train,
    "evaluate": evaluate,
    "compare": compare,
    "lr_range": trained("lr_range"),
    "predict": predict,
    "make_data": make_data,
    "render_dense": render_dense,
    "view": view,
    "demo": demo,
}


def run(cfg: DictConfig, job: str = "") -> None:
    """Check everything, then do what `mode` says."""
    memory.check_limit()
    config = configs.resolve(cfg)
    settings = configs.run_of(config)
    if settings.mode not in MODES:
        raise ConfigError(f"mode={settings.mode}: expected one of {', '.join(MODES)}")
    import torch

    memory.check_limit()  # again, for now it is known what torch takes
    torch.manual_seed(settings.seed)
    if settings.device.threads:
        torch.set_num_threads(settings.device.threads)
    from immersivedepth import runs

    try:
        MODES[settings.mode](config, job)
    finally:
        runs.release()


def run_job(cfg: DictConfig) -> None:
    """One job of a multirun."""
    run(cfg, str(hydra.core.hydra_config.HydraConfig.get().job.num))


def main() -> None:
    """Run with one line on stderr and an exit code for whatever a user can mend."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # Hydra then leaves errors to us
    for name in ("SIGTERM", "SIGUSR1"):  # Windows has no SIGUSR1
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda number, _: sys.exit(128 + number))
    screen = logging.StreamHandler()
    screen.setLevel(logging.INFO)  # details and tracebacks are for the log file of the run
    logging.basicConfig(format="%(message)s", handlers=[screen])
    log.setLevel(logging.DEBUG)
    try:
        cfg = preflight(sys.argv[1:])
        if cfg is not None:
            run(cfg)
        else:  # --help, --cfg, --multirun and the like
            hydra.main(config_path=str(configs.CONF), config_name="config", version_base="1.3")(run_job)()
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        message, code = one_line(error)
        log.debug("failed", exc_info=True)
        if "debug=true" in sys.argv:
            raise
        print(message, file=sys.stderr)
        sys.exit(code)


if __name__ == "__main__":
    main()
