"""The page itself: what stands where, and what happens when."""

from __future__ import annotations

import functools
import html
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr

from ..checks import ConfigError, InputError, UserError
from ..config import build
from ..data import images
from ..weights import Weights, fetch
from . import choices, showing
from .folders import Job, Keeper
from .settings import App
from .work import News, Result, Worker, facts, said, samples

TITLE = "ImmersiveDepth"
KINDS = [suffix for suffix in images.SUFFIXES if suffix != ".npy"]
CSS = """
.said { margin: .2rem 0; min-height: 1.5rem; }
.said.bad { border-left: 4px solid #c0392b; padding-left: .6rem; }
.facts th { text-align: left; padding-right: 1.2rem; font-weight: 600; vertical-align: top; }
.facts td, .facts th { padding-top: .15rem; padding-bottom: .15rem; }
.pictures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)); gap: 1rem; }
.pictures figure { margin: 0; }
.pictures img { width: 100%; }
body:not(.dark) .value.string { color: #8a3b12 !important; }
body:not(.dark) button[role="tab"].selected { color: var(--primary-700) !important; }
footer { display: none !important; }
"""
INTRO = (
    "# ImmersiveDepth\nUpload one 360-degree panorama (equirectangular, twice as wide as high) and walk into it: "
    "distance, normals, masks and 3D."
)
_RUNS = "runs"  # one at a time
_LOOKS = "looks"  # previews, beside the runs
_PROGRESS, _TRACKED = gr.Progress(), gr.Progress(track_tqdm=True)


def _upload(label: str, height: int) -> Any:
    """A place to drop a file; where a program gives an address instead, nothing is fetched from there."""
    place = gr.File(label=label, file_types=KINDS, type="filepath", height=height)
    move = place.async_move_resource_to_block_cache

    async def careful(path: Any) -> Any:
        if re.match(r"\s*[a-z]+://", str(path), re.IGNORECASE):
            raise gr.Error("Upload a file; addresses are not followed.", print_exception=False)
        return await move(path)

    place.async_move_resource_to_block_cache = careful
    return place


class Page:
    """Builds the page and answers it."""

    def __init__(self, config: dict[str, Any], app: App, keeper: Keeper) -> None:
        self.app, self.keeper = app, keeper
        self.weights: Weights = build(config["weights"], "weights")
        self.worker = Worker(config, app)

    def blocks(self) -> gr.Blocks:
        """Everything on it."""
        minute = 60
        age = max(1, round(self.app.keep_minutes * minute))
        with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(min(minute, age), age)) as page:
            gr.Markdown(INTRO)
            with gr.Tabs() as tabs:
                with gr.Tab("Panorama", id="panorama"):
                    panorama = self._panorama_tab()
                with gr.Tab("Stereo pair", id="stereo"):
                    self._stereo_tab()
                with gr.Tab("Plain picture", id="plain"):
                    plain = self._plain_tab()
            panorama["treat"].click(
                lambda file: (gr.Tabs(selected="plain"), file),
                panorama["file"],
                [tabs, plain],
                api_visibility="private",
                show_progress="hidden",
            )
            page.unload(self._left)
            self._sweeping(page)
        page.queue(max_size=self.app.queue, default_concurrency_limit=1)
        return page

    # --- What stands where

    def _choices(self) -> list[Any]:
        here = choices.present(self.app, self.weights)
        with gr.Accordion("Choices", open=True):
            networks = gr.CheckboxGroup(
                [(n.label, n.name) for n in here.values()], value=_default(here), label="Networks"
            )
            with gr.Row():
                size = gr.Dropdown(list(choices.SIZES), value=list(choices.SIZES)[1], label="Resolution", min_width=260)
                colours = gr.Dropdown(list(choices.COLOURS), value=choices.COLOURS[0], label="Colours")
            with gr.Row():
                alignment = gr.Dropdown(
                    list(choices.ALIGNMENTS), value=list(choices.ALIGNMENTS)[0], label="Alignment", min_width=260
                )
                refinement = gr.Dropdown(list(choices.REFINEMENTS), value="none", label="Further refinement")
        self._fetching(networks)
        return [networks, size, alignment, refinement, colours]

    def _fetching(self, networks: Any) -> None:
        missing = choices.absent(self.app, self.weights)
        if not self.app.downloads or self.weights.offline or not missing:
            return
        with gr.Accordion("More networks", open=False):
            wanted = gr.Dropdown(
                [(n.label, n.name) for n in missing.values()], label="Fetch", value=next(iter(missing))
            )
            about = gr.HTML(showing.words(choices.licence(missing[next(iter(missing))])))
            agreed = gr.Checkbox(label="I have read the licence and agree to it", value=False)
            get = gr.Button("Fetch this network")
        wanted.change(
            lambda name: showing.words(choices.licence(missing[name])) if name in missing else "",
            wanted, about, api_visibility="private", show_progress="hidden",
        )  # fmt: skip
        get.click(self._fetch, [wanted, agreed, networks], [about, networks], api_name="fetch", concurrency_id="fetch")

    def _results(self) -> dict[str, Any]:
        """Where results come to stand."""
        found: dict[str, Any] = {"said": gr.HTML(showing.words("Upload a panorama or take a sample to begin."))}
        with gr.Tabs():
            with gr.Tab("Look around"):
                found["viewer"] = gr.HTML()
            with gr.Tab("Slider"):
                found["slider"] = gr.ImageSlider(label="Panorama and distance", type="filepath", interactive=False)
            with gr.Tab("Pictures"):
                found["pictures"] = gr.HTML()
            with gr.Tab("3D"):
                found["inside"] = gr.HTML()
                gr.Markdown("Drag: turn. Arrow keys or W A S D: walk, Q and E: down and up. Wheel: zoom.")
            with gr.Tab("Film"):
                found["shoot"] = gr.Button("Make a film from within", interactive=False)
                found["film"] = gr.Video(label="Once around", interactive=False, visible=False)
            with gr.Tab("Quality"):
                found["table"] = gr.HTML()
                found["quality"] = gr.JSON(label="All figures", open=False)
            with gr.Tab("Files"):
                found["archive"] = gr.File(label="Everything in one archive", interactive=False)
                found["files"] = gr.File(label="Single files", file_count="multiple", interactive=False)
            with gr.Tab("Command line"):
                found["command"] = gr.Textbox(
                    label="The same run on the command line", lines=14, interactive=False, buttons=["copy"]
                )
        found["job"] = gr.State("")
        return found

    def _panorama_tab(self) -> dict[str, Any]:
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                file = _upload("Panorama", 150)
                gr.Examples([[str(path)] for path in samples()], file, label="Samples")
                treat = gr.Button("Treat it as a plain picture", visible=False)
                chosen = self._choices()
                with gr.Row():
                    run = gr.Button("Run", variant="primary")
                    stop = gr.Button("Stop", variant="stop")
            with gr.Column(scale=2, min_width=300):
                found = self._results()
        preview = [found["said"], found["viewer"], treat]
        file.change(self._preview, file, preview, api_visibility="private", concurrency_id=_LOOKS, concurrency_limit=2)
        running = run.click(
            self._estimate, [file, *chosen], _targets(found), api_visibility="private", concurrency_id=_RUNS,
            concurrency_limit=1, show_progress_on=[found["said"]],
        )  # fmt: skip
        self._stopping(stop, running, found["said"])
        self._after(found)
        for control in chosen:
            control.change(
                self._command, [file, *chosen], found["command"], api_visibility="private", show_progress="hidden"
            )
        self._endpoint(file, chosen)
        return {"file": file, "treat": treat}

    def _after(self, found: dict[str, Any]) -> None:
        """What can be done with a result."""
        found["shoot"].click(self._film, found["job"], found["film"], api_visibility="private", concurrency_id=_RUNS)

    def _stopping(self, stop: Any, running: Any, line: Any) -> None:
        stop.click(self._stop, None, line, queue=False, api_visibility="private", cancels=[running])

    def _endpoint(self, file: Any, chosen: list[Any]) -> None:
        """The same for programs: the archive and the figures."""
        button = gr.Button(visible=False)
        archive, figures = gr.File(visible=False), gr.JSON(visible=False)
        button.click(
            self._estimate_for_programs, [file, *chosen], [archive, figures], api_name="estimate",
            concurrency_id=_RUNS,
        )  # fmt: skip
        gr.Button(visible=False).click(self._networks, None, figures, api_name="networks", queue=False)

    def _stereo_tab(self) -> None:
        there = bool(self.app.stereo_weights) and Path(str(self.app.stereo_weights)).expanduser().is_file()
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                if not there:
                    gr.Markdown(
                        "Stereo needs a trained network, and this server has none: start it with "
                        "`app.stereo_weights=<checkpoint of system=stereo_3d60>`."
                    )
                left = _upload("Left (or lower) panorama", 120)
                right = _upload("Right (or upper) panorama", 120)
                side = gr.Radio(["right", "up"], value="right", label="Where the second camera stands")
                baseline = gr.Number(0.26, label="Metres between the cameras", minimum=0.001, maximum=100)
                colours = gr.Dropdown(list(choices.COLOURS), value=choices.COLOURS[0], label="Colours")
                with gr.Row():
                    run = gr.Button("Run", variant="primary", interactive=there)
                    stop = gr.Button("Stop", variant="stop")
            with gr.Column(scale=2, min_width=300):
                found = self._results()
        inputs = [left, right, side, baseline, colours]
        running = run.click(
            self._stereo, inputs, _targets(found), api_visibility="private", concurrency_id=_RUNS,
            show_progress_on=[found["said"]],
        )  # fmt: skip
        self._stopping(stop, running, found["said"])
        self._after(found)
        archive, figures = gr.File(visible=False), gr.JSON(visible=False)
        gr.Button(visible=False).click(
            self._stereo_for_programs, inputs, [archive, figures], api_name="stereo", concurrency_id=_RUNS
        )

    def _plain_tab(self) -> Any:
        here = {k: n for k, n in choices.present(self.app, self.weights).items() if k != choices.ORACLE}
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                file = _upload("Picture", 150)
                if not here:
                    gr.Markdown("No network is present on this server: fetch one under *More networks* first.")
                network = gr.Dropdown(
                    [(n.label, n.name) for n in here.values()], value=next(iter(here), None), label="Network"
                )
                fov = gr.Slider(20, 150, 60, step=1, label="Degrees across (for networks that say metres)")
                colours = gr.Dropdown(list(choices.COLOURS), value=choices.COLOURS[0], label="Colours")
                with gr.Row():
                    run = gr.Button("Run", variant="primary")
                    stop = gr.Button("Stop", variant="stop")
            with gr.Column(scale=2, min_width=300):
                line = gr.HTML(showing.words("Upload a picture to begin."))
                slider = gr.ImageSlider(label="Picture and map", type="filepath", interactive=False)
                files = gr.File(label="Files", file_count="multiple", interactive=False)
        running = run.click(
            self._plain, [file, network, fov, colours], [line, slider, files], api_name="perspective",
            concurrency_id=_RUNS, show_progress_on=[line],
        )  # fmt: skip
        self._stopping(stop, running, line)
        return file

    def _sweeping(self, page: gr.Blocks) -> None:
        """Old results go, whether or not anybody comes."""
        pause = min(5.0, max(0.5, self.keeper.keep / 4))
        self.ended = threading.Event()

        def sweep() -> None:
            while not self.ended.wait(pause):
                self.keeper.sweep()

        threading.Thread(target=sweep, daemon=True, name="sweeping").start()

    # --- What happens

    def _preview(self, file: str | None) -> tuple[Any, Any, Any]:
        if not file:
            return showing.words("Upload a panorama or take a sample to begin."), "", gr.update(visible=False)
        try:
            panorama = self.worker.panorama(Path(file))
        except Exception as error:  # every malformed upload is met with one sentence
            plain = isinstance(error, InputError) and "twice as wide" in str(error)
            text = said(error, self.keeper.folder)
            if plain:
                text += " It can also be looked at as a plain picture."
            return showing.words(text, "bad"), "", gr.update(visible=plain)
        height, width = panorama.size
        notes = "; ".join(map(str, panorama.about.get("notes", ())))
        part = ", a part of a sphere, placed where its tags say" if panorama.mask is not None else ""
        text = f"{panorama.name}: {width} x {height} pixels{part}. {notes}".strip()
        return showing.words(text), showing.frame(panorama), gr.update(visible=False)

    def _given(self, networks: Any, size: str, alignment: str, refinement: str, colours: str) -> list[str]:
        chosen = choices.chosen(networks or [], self.app, self.weights)
        return choices.overrides(chosen, size, alignment, refinement, colours)

    def _command(
        self, file: str | None, networks: Any, resolution: str, alignment: str, refinement: str, colours: str
    ) -> str:
        chosen = (networks, resolution, alignment, refinement, colours)
        try:
            return choices.command(self._given(*chosen), Path(file).name if file else "panorama.jpg")
        except UserError as error:
            return f"# {said(error, self.keeper.folder)}"

    def _estimate(
        self, file: str | None, networks: Any, resolution: str, alignment: str, refinement: str, colours: Any,
        request: gr.Request, progress: Any = _PROGRESS,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """Results as they come."""
        chosen = (networks, resolution, alignment, refinement, colours)
        yield from self._run(
            request, progress, colours, lambda: self._command(file, *chosen),
            lambda job, tell: self.worker.estimate(_there(file), self._given(*chosen), job, tell),
        )  # fmt: skip

    def _stereo(
        self, left: Any, right: Any, side: str, baseline: float, colours: Any, request: gr.Request,
        progress: Any = _PROGRESS,
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        given = functools.partial(self._stereo_given, side, baseline, colours)
        yield from self._run(
            request, progress, colours,
            lambda: choices.command(["mode=predict", "system=stereo_3d60", *given()], ""),
            lambda job, tell: self.worker.stereo(_there(left), _there(right), given(), job, tell),
        )  # fmt: skip

    def _stereo_given(self, side: str, baseline: float, colours: str) -> list[str]:
        if not self.app.stereo_weights:
            raise ConfigError("Stereo needs a trained network, and this server has none.")
        if side not in ("right", "up") or not isinstance(baseline, int | float) or not 0 < baseline <= 100:
            raise ConfigError("The second camera stands to the right or up, up to 100 metres away.")
        if colours not in choices.COLOURS:
            raise ConfigError(f"choose a colour map: one of {', '.join(choices.COLOURS)}.")
        paint = f"export.preview.colours={colours}"
        return [f"dataset.side={side}", f"dataset.baseline={float(baseline)}", *choices.PRODUCTS, paint]

    def _run(
        self, request: gr.Request, progress: Any, colours: Any, line: Callable[[], str],
        work: Callable[[Job, Callable[[News], None]], Result],
    ) -> Iterator[tuple[Any, ...]]:  # fmt: skip
        """A run in the order in which its results come, in the order of `_targets`."""
        keep = [gr.skip()] * len(_ORDER)

        def show(**values: Any) -> tuple[Any, ...]:
            return tuple(values.get(name, old) for name, old in zip(_ORDER, keep, strict=True))

        with self._job(request) as job:
            yield show(
                said=showing.words("Begins ..."), command=line(), archive=None, files=None, film=None, model=None
            )
            seen = 0
            try:
                for news in _told(work, job):
                    if isinstance(news, Result):
                        result = news
                        break
                    progress(news.share, desc=news.words)
                    changed: dict[str, Any] = {"said": showing.words(f"{round(100 * news.share)} %: {news.words}")}
                    if news.geometry is not None and news.panorama is not None:
                        seen += 1
                        changed["slider"] = showing.pair(news.panorama, news.geometry, job.folder, colours, str(seen))
                    yield show(**changed)
            except Exception as error:  # whatever happens, the page says it in one sentence
                yield show(said=showing.words(said(error, self.keeper.folder), "bad"))
                return
            yield show(
                said=showing.words(f"Done in {result.seconds:.1f} s."),
                viewer=showing.frame(result.panorama, result.geometry, colours),
                slider=showing.pair(result.panorama, result.geometry, job.folder, colours, "final"),
                pictures=showing.pictures(result),
                inside=showing.inside(result.panorama, result.geometry, colours),
                shoot=gr.update(interactive=True),
                table=showing.table(result),
                quality=facts(result),
                archive=str(result.archive),
                files=[str(path) for path in result.files],
                job=job.folder.name,
            )

    def _estimate_for_programs(
        self, file: str | None, networks: Any, resolution: str, alignment: str, refinement: str, colours: str,
        request: gr.Request, progress: Any = _PROGRESS,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        chosen = (networks, resolution, alignment, refinement, colours)
        return self._plainly(
            request, progress, lambda job, tell: self.worker.estimate(_there(file), self._given(*chosen), job, tell)
        )

    def _stereo_for_programs(
        self, left: Any, right: Any, side: str, baseline: float, colours: Any, request: gr.Request,
        progress: Any = _PROGRESS,
    ) -> tuple[str, dict[str, Any]]:  # fmt: skip
        return self._plainly(
            request, progress,
            lambda job, tell: self.worker.stereo(
                _there(left), _there(right), self._stereo_given(side, baseline, colours), job, tell
            ),
        )  # fmt: skip

    def _plainly(
        self, request: gr.Request, progress: Any, work: Callable[[Job, Callable[[News], None]], Result]
    ) -> tuple[str, dict[str, Any]]:
        with self._job(request) as job:
            try:
                result = work(job, lambda news: progress(news.share, desc=news.words))
            except Exception as error:
                raise self._refused(error) from None
        return str(result.archive), facts(result)

    def _plain(
        self, file: str | None, network: str | None, fov: float, colours: Any, request: gr.Request,
        progress: Any = _PROGRESS,
    ) -> tuple[str, tuple[str, str], list[str]]:  # fmt: skip
        with self._job(request) as job:
            try:
                if not isinstance(fov, int | float) or not 20 <= fov <= 150:
                    raise ConfigError("The picture is between 20 and 150 degrees across.")
                given = self._given([network] if network else [], "as uploaded", *_FIRST, colours)
                picture, shown, files, words = self.worker.plain(
                    _there(file), given, fov, colours, job, lambda news: progress(news.share, desc=news.words)
                )
            except Exception as error:
                raise self._refused(error) from None
        left, right = job.folder / "shown" / "picture.jpg", job.folder / "shown" / "map.png"
        images.write_jpeg(left, picture)
        images.write_png(right, shown)
        return showing.words(words), (str(left), str(right)), [str(path) for path in files]

    def _film(self, name: str, request: gr.Request, progress: Any = _PROGRESS) -> Any:
        job = self.keeper.of(str(request.session_hash), name)
        try:
            if job is None:
                raise InputError("The result is no longer there: run it again first.")
            job.cancelled.clear()
            with _running(job):
                film = self.worker.film(job, lambda news: progress(news.share, desc=news.words))
            return gr.update(value=str(film), visible=True)
        except Exception as error:
            raise self._refused(error) from None

    def _networks(self) -> list[dict[str, Any]]:
        here = choices.present(self.app, self.weights)
        return [
            {"name": n.name, "present": n.name in here, "about": choices.licence(n)} for n in choices.known(self.app)
        ]

    def _fetch(self, name: str, agreed: bool, chosen: Any, progress: Any = _TRACKED) -> tuple[Any, Any]:
        missing = choices.absent(self.app, self.weights)
        try:
            if name not in missing:
                raise ConfigError("This network is present already, or unknown.")
            if not agreed:
                raise ConfigError("Read the licence and agree to it first.")
            progress(0, desc=f"fetching {name}")
            fetch(name, settings=self.weights)
        except Exception as error:
            return showing.words(said(error, self.keeper.folder), "bad"), gr.skip()
        here = choices.present(self.app, self.weights)
        done = showing.words(f"{name} is here and can be chosen.")
        return done, gr.update(choices=[(n.label, n.name) for n in here.values()], value=[*(chosen or []), name])

    def _stop(self, request: gr.Request) -> str:
        stopped = self.keeper.cancel(str(request.session_hash))
        return showing.words("Stopped." if stopped else "Nothing of yours runs or waits any more.")

    def _left(self, request: gr.Request) -> None:
        self.keeper.leave(str(request.session_hash))

    def _refused(self, error: Exception) -> gr.Error:
        return gr.Error(html.escape(said(error, self.keeper.folder), quote=False), print_exception=False)

    def _job(self, request: gr.Request) -> _running:
        return _running(self.keeper.open(str(request.session_hash)))


_ORDER = (
    "said", "viewer", "slider", "pictures", "inside", "shoot", "film", "table", "quality", "archive", "files",
    "command", "job",
)  # fmt: skip
_FIRST = (next(iter(choices.ALIGNMENTS)), next(iter(choices.REFINEMENTS)))


def _targets(found: dict[str, Any]) -> list[Any]:
    return [found[name] for name in _ORDER]


class _running:
    """A job for as long as its run lasts; when the run is given up from outside, it is told to end."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def __enter__(self) -> Job:
        self.job.running = True
        return self.job

    def __exit__(self, *_: object) -> None:
        self.job.running = False


def _told(work: Callable[[Job, Callable[[News], None]], Result], job: Job) -> Iterator[News | Result]:
    """What a run tells, while it goes on beside; ends with its result or its error."""
    told: queue.Queue[News | Result | BaseException] = queue.Queue()

    def run() -> None:
        try:
            told.put(work(job, told.put))
        except BaseException as error:
            told.put(error)
        finally:
            job.running = False  # also where nobody listens any more

    thread = threading.Thread(target=run, daemon=True, name="run")
    thread.start()
    try:
        while True:
            news = told.get()
            if isinstance(news, BaseException):
                raise news
            yield news
            if isinstance(news, Result):
                return
    finally:
        job.cancelled.set()
        thread.join()


def _there(file: Any) -> Path:
    if not file or not isinstance(file, str):
        raise InputError("No picture is there yet: upload one or take a sample first.")
    return Path(file)


def _default(here: dict[str, choices.Network]) -> list[str]:
    """Networks of the package, else the first that is present, else the sample's truth."""
    bundled = [name for name in here if name.startswith(choices.BUNDLED)]
    return bundled or [next(iter(here))]
