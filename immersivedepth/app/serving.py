"""mode=demo: the page on a port, and an end to it."""

from __future__ import annotations

import os
import re
import time
from typing import Any
from urllib.parse import unquote

from ..checks import ResourceError
from ..config import build
from .folders import Keeper
from .settings import App

# The browser itself refuses every other host, whatever a library's code may ask for.
POLICY = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; object-src 'none'; base-uri 'self'"
)

HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}
_VISITORS = 200  # whose choices are kept in memory, about 0.3 MB each; those who came longest ago are forgotten first


class Demo:
    """The served page; it ends with the block that it is used in."""

    def __init__(self, config: dict[str, Any], app: App) -> None:
        self.seconds = app.seconds
        self.keeper = Keeper(app.folder, app.keep_minutes)
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
        os.environ["GRADIO_TEMP_DIR"] = str(self.keeper.folder)  # uploads lie there, and nothing else is served
        import gradio as gr
        from starlette.middleware import Middleware

        from .page import CSS, Page

        self.page = Page(config, app, self.keeper)
        self.blocks = self.page.blocks()
        # Fonts of the visitor's own system, and colours that can be told apart by most eyes.
        fonts = {"font": ["system-ui", "sans-serif"], "font_mono": ["ui-monospace", "monospace"]}
        try:
            self.blocks.launch(
                server_name=app.host,
                server_port=app.port or _free(app.host),
                prevent_thread_lock=True,
                quiet=True,
                share=False,
                ssr_mode=False,
                state_session_capacity=_VISITORS,
                show_error=True,
                max_file_size=app.upload_mb * 2**20,
                theme=gr.themes.Default(primary_hue="indigo", **fonts).set(
                    button_primary_background_fill="*primary_600",
                    button_primary_background_fill_hover="*primary_700",
                    button_primary_background_fill_dark="*primary_600",
                    button_cancel_background_fill="*neutral_700",
                    button_cancel_background_fill_hover="*neutral_800",
                    button_cancel_background_fill_dark="*neutral_700",
                ),
                css=CSS,
                footer_links=[],
                app_kwargs={"middleware": [Middleware(Guard)]},
            )
        except OSError as error:
            self.close()
            raise ResourceError(
                f"app.port={app.port}: cannot be served there ({error}); choose another port"
            ) from error
        self.address = str(self.blocks.local_url).rstrip("/")

    @classmethod
    def of(cls, config: dict[str, Any]) -> Demo:
        """The page of a checked config."""
        return cls(config, build(config["app"], "app"))

    def wait(self) -> None:
        """Until the time is over, or for ever."""
        end = None if self.seconds is None else time.monotonic() + self.seconds
        while end is None or time.monotonic() < end:
            time.sleep(0.2)

    def close(self) -> None:
        """No further visitors, and everything of theirs goes."""
        if hasattr(self, "page") and hasattr(self.page, "ended"):
            self.page.ended.set()
        if hasattr(self, "blocks"):
            self.blocks.close(verbose=False)
        self.keeper.close()

    def __enter__(self) -> Demo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Guard:
    """Adds what the browser must know to every answer, and answers no question for another host's files."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and _names_an_address(scope["path"]):  # gradio would fetch it and hand it on
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return

        async def tell(message: Any) -> None:
            if message["type"] == "http.response.start":
                headers = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        await self.app(scope, receive, tell)


def _names_an_address(path: str) -> bool:
    """Whether a file is asked for by an address of another host."""
    return bool(re.search(r"(file|proxy)=\s*[a-z]+:", unquote(unquote(path)), re.IGNORECASE))


def _free(host: str) -> int:
    import socket

    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
