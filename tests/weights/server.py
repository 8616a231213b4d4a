"""A web server on this machine that tells the truth or lies, as each answer in its script says."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[["Handler"], None]


class Liar(ThreadingHTTPServer):
    """Serves one file; the first requests are answered by `script` in order, all later ones honestly."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, body: bytes, *, etag: str | None = '"one"') -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.body, self.etag = body, etag
        self.script: list[Answer] = []
        self.always: Answer | None = None
        self.asked: list[dict[str, str]] = []  # the headers of each request
        self.lock = threading.Lock()
        self.closing = threading.Event()
        self.pace = 0.0  # seconds between pieces of 8 kB

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/file.pt"

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.body).hexdigest()

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""

    def __enter__(self) -> Liar:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.closing.set()
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Liar

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.asked.append(dict(self.headers))
            answer = self.server.script.pop(0) if self.server.script else self.server.always or honest
        self.close_connection = True
        with suppress(ConnectionError):
            answer(self)

    def log_message(self, *args: object) -> None:
        """Silence."""

    def head(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        if self.server.etag and "ETag" not in headers:
            self.send_header("ETag", self.server.etag)
        for name, value in {"Content_Type": "application/octet-stream", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def start(self) -> int:
        """Where the body is to begin: what the Range header asks for, if the file is still the one that is meant."""
        wanted = self.headers.get("Range")
        if not wanted or (self.server.etag and self.headers.get("If-Range") != self.server.etag):
            return 0
        return int(wanted.removeprefix("bytes=").removesuffix("-"))

    def pour(self, data: bytes) -> None:
        for i in range(0, len(data), 8192):
            self.wfile.write(data[i : i + 8192])
            if self.server.pace:
                self.wfile.flush()
                time.sleep(self.server.pace)


def honest(handler: Handler) -> None:
    body, start = handler.server.body, handler.start()
    if start:
        handler.head(206, len(body) - start, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
    else:
        handler.head(200, len(body))
    handler.pour(body[start:])


def cut(after: int) -> Answer:
    """Send so many bytes of what was promised, then hang up."""

    def answer(handler: Handler) -> None:
        body, start = handler.server.body, handler.start()
        if start:
            handler.head(206, len(body) - start, Content_Range=f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            handler.head(200, len(body))
        handler.pour(body[start : start + after])

    return answer


def stall(after: int) -> Answer:
    """Send so many bytes, then fall silent without hanging up."""

    def answer(handler: Handler) -> None:
        handler.head(200, len(handler.server.body))
        handler.pour(handler.server.body[:after])
        handler.wfile.flush()
        handler.server.closing.wait(5)

    return answer


def drip(handler: Handler) -> None:
    """One byte every 20 ms, for ever: never silent, never done."""
    handler.head(200, len(handler.server.body))
    for byte in handler.server.body:
        handler.wfile.write(bytes([byte]))
        handler.wfile.flush()
        if handler.server.closing.wait(0.02):
            return


def status(code: int, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(code, 4, **headers)
        handler.wfile.write(b"oops")

    return answer


def claims(length: int) -> Answer:
    """A Content-Length that is not the length."""

    def answer(handler: Handler) -> None:
        handler.head(200, length)
        handler.pour(handler.server.body)

    return answer


def sends(body: bytes, code: int = 200, length: bool = True, **headers: str) -> Answer:
    def answer(handler: Handler) -> None:
        handler.head(code, len(body) if length else None, **headers)
        handler.pour(body)

    return answer


def ignores_range(handler: Handler) -> None:
    handler.head(200, len(handler.server.body))
    handler.pour(handler.server.body)


def becomes(body: bytes, etag: str) -> Answer:
    """From now on another file lies at this address."""

    def answer(handler: Handler) -> None:
        handler.server.body, handler.server.etag = body, etag
        honest(handler)

    return answer


def flipped(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1 :]
