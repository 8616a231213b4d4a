"""Fetches one file over HTTPS and lets it appear under its name only when every byte has been checked."""

from __future__ import annotations

import http.client
import logging
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from tqdm import tqdm

from ..checks import ResourceError, WeightsError
from ..files import TEMPORARY, atomic
from ..memory import human
from .reading import damage, digest

log = logging.getLogger(__name__)

CHUNK = 1 << 20
SLOWEST = 1024  # bytes per second over one timeout; a server that drips slower than this counts as stalled
STALE = 24 * 3600.0  # seconds after which another process's temporary file is taken for abandoned
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be better a moment later


@dataclass(frozen=True)
class Patience:
    """How long a transfer is waited for, how often it is tried again, and how large it may grow."""

    timeout_s: float = 30.0
    retries: int = 5  # attempts in a row that bring nothing new
    backoff_s: float = 1.0  # doubles with every such attempt
    limit: int = 8 << 30  # bytes


class _Broken(Exception):
    """A transfer that ended early; another attempt may go on where it stopped."""

    def __init__(self, reason: str, wait: float = 0.0) -> None:
        super().__init__(reason)
        self.wait = wait


class _SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but never from HTTPS to something weaker."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not _safe(newurl) or (req.full_url.startswith("https:") and not newurl.startswith("https:")):
            fp.close()
            raise WeightsError(f"{req.full_url} redirects to {newurl}, which is not HTTPS: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _safe(url: str) -> bool:
    """HTTPS, or this very machine."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))


@contextmanager
def locked(target: Path) -> Iterator[None]:
    """Let one process at a time fetch a file. Only spares work: without locks the outcome is the same."""
    try:
        import fcntl
    except ImportError:  # not a POSIX system
        yield
        return
    with target.with_name(f".{target.name}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.warning("%s: another process is fetching it; waiting", target.name)
            with suppress(OSError):
                fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError:  # some network file systems have no locks
            pass
        yield


def sweep_stale(target: Path) -> None:
    """Remove what killed downloads of this file left behind."""
    for path in target.parent.glob(f".{target.stem}.*{TEMPORARY}{target.suffix}"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                path.unlink()


def download(
    url: str,
    target: Path,
    size: int | None,
    sha256: str | None,
    patience: Patience,
    announce: Callable[[], None] = lambda: None,
) -> str:
    """Fetch `url` into `target` and return its SHA-256; after any failure `target` is as it was before.

    `announce` is called once, when the server has answered and the transfer is about to begin.
    """
    if not _safe(url):
        raise WeightsError(f"{url} is not HTTPS: refused")
    with atomic(target) as temporary:
        transfer = _Transfer(url, target, temporary, size, sha256 is not None, patience, announce)
        transfer.run()
        found = digest(temporary)
        if sha256 and found != sha256 and transfer.resumed:  # pieces of two different files, perhaps
            log.warning("%s: the pieces do not fit together; fetching the whole file again", target.name)
            temporary.unlink()
            transfer.run()
            found = digest(temporary)
        if sha256 and found != sha256:
            raise WeightsError(
                f"what {url} sent is not the released file: SHA-256 expected {sha256}, found {found}; nothing was kept"
            )
        if sha256 is None and (reason := damage(temporary, thorough=True)):
            raise WeightsError(f"what {url} sent is not a weights file: {reason}; nothing was kept")
        return found


class _Transfer:
    """The attempts to bring one file over, each going on where the last one stopped."""

    def __init__(
        self,
        url: str,
        target: Path,
        temporary: Path,
        size: int | None,
        hashed: bool,
        patience: Patience,
        announce: Callable[[], None],
    ) -> None:
        self.url, self.target, self.temporary, self.patience = url, target, temporary, patience
        self.size, self.hashed = size, hashed
        self.total = size  # bytes of the whole file, once known
        self.validator: str | None = None  # says to the server which version the first part is of
        self.resumed = False
        self.reached = False  # the server has answered at least once
        self.announce = announce
        self.opener = urllib.request.build_opener(_SafeRedirects)

    def run(self) -> None:
        """Try until the file is whole, or until trying brings nothing new."""
        self.resumed, self.validator = False, None
        failures = 0
        while True:
            before = self.have
            try:
                self._attempt()
                return
            except _Broken as broken:
                failures = 0 if self.have - before >= min(CHUNK, (self.total or CHUNK) // 10 + 1) else failures + 1
                # a server that never answered is most likely out of reach: one more attempt, without a word
                if failures > (self.patience.retries if self.reached else min(self.patience.retries, 1)):
                    raise WeightsError(f"{self.url}: {broken} (tried {failures} times)") from broken
                log.log(
                    logging.WARNING if self.reached else logging.DEBUG, "%s: %s; trying again", self.target.name, broken
                )
                time.sleep(max(min(broken.wait, 60.0), min(self.patience.backoff_s * 2 ** max(failures - 1, 0), 30.0)))

    @property
    def have(self) -> int:
        return self.temporary.stat().st_size if self.temporary.exists() else 0

    def _attempt(self) -> None:
        have = self.have if self.validator else 0
        headers = {"User-Agent": "immersivedepth", "Accept-Encoding": "identity"}
        if have and have == self.total:
            return
        if have and self.validator:
            headers |= {"Range": f"bytes={have}-", "If-Range": self.validator}
        with self._open(headers) as response:
            self.reached = True
            have = self._start(response, have)
            self.announce()
            self.announce = lambda: None
            self._pour(response, have)

    def _open(self, headers: dict[str, str]) -> Any:
        try:
            return self.opener.open(urllib.request.Request(self.url, headers=headers), timeout=self.patience.timeout_s)
        except urllib.error.HTTPError as error:
            error.close()
            self.reached = True
            if error.code == 416:  # the file at the other end is shorter than what was begun
                self.validator = None
            if error.code in (*PASSING, 416):
                wait = error.headers.get("Retry-After", "")
                raise _Broken(f"the server answered {error.code}", float(wait) if wait.isdigit() else 0.0) from error
            reason = str(error.reason).strip().splitlines()[:1]
            raise WeightsError(" ".join([f"{self.url} answered {error.code}", *reason])) from error
        except urllib.error.URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise WeightsError(f"{self.url} has no valid certificate ({error.reason}): refused") from error
            raise _Broken(str(error.reason or error)) from error
        except (http.client.HTTPException, OSError) as error:
            raise _Broken(_say(error)) from error

    def _start(self, response: Any, have: int) -> int:
        """Read the head of an answer; the position at which its body begins."""
        kind = response.headers.get("Content-Type", "").lower()
        if kind.startswith(("text/html", "application/xhtml")):
            raise WeightsError(f"{self.url} sent a web page (HTML) instead of the file")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise WeightsError(f"{self.url} sent an encoded body, which was not asked for")
        etag, date = response.headers.get("ETag"), response.headers.get("Last-Modified")
        strong = etag if etag and not etag.startswith("W/") else None
        length = response.headers.get("Content-Length", "")
        total = int(length) if length.isdigit() else None
        if response.status == 206:
            place = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response.headers.get("Content-Range", "").strip())
            if not place or int(place[1]) != have or (strong and self.validator != strong and self.validator != date):
                self.validator = None
                raise _Broken("the server went on with another part or another file")
            total = int(place[3])
            self.resumed = True
        else:  # the whole file: the server ignores ranges, or holds another version now
            have = 0
            self.validator = strong or (date if self.hashed else None)
            self.total = self.size
        self._agree(total)
        return have

    def _agree(self, total: int | None) -> None:
        """Compare the size that the server states with what is known."""
        if total is None and self.total is None:
            raise WeightsError(f"{self.url} states no size, and none is known: refused")
        if self.size is not None and total is not None and total != self.size:
            raise WeightsError(f"{self.url} holds {total} bytes, the released file has {self.size}: refused")
        if total is not None and self.total is not None and total != self.total:
            self.validator = None
            raise _Broken("the file changed its size at the other end")
        self.total = total if total is not None else self.total
        if self.total is not None and self.total > self.patience.limit:
            raise WeightsError(f"{self.url} holds {self.total} bytes, more than weights.limit_gb allows: refused")

    def _pour(self, response: Any, have: int) -> None:
        """Write the body of an answer from position `have` on."""
        whole = self.total or 0
        if shutil.disk_usage(self.target.parent).free < whole - have:
            raise ResourceError(
                f"{self.target}: needs {human(whole)}, the disk has less. Free some space or set weights.folder."
            )
        window, since = 0, time.monotonic()
        bar = tqdm(
            total=whole, initial=have, desc=self.target.name, unit="B", unit_scale=True, leave=False, disable=None
        )
        with bar, self._file(have) as handle:
            while have < whole:
                try:
                    chunk = response.read1(min(CHUNK, whole - have))
                except (http.client.HTTPException, OSError) as error:
                    raise _Broken(f"{_say(error)} after {have} of {whole} bytes") from error
                if not chunk:
                    raise _Broken(f"cut after {have} of {whole} bytes")
                try:
                    _append(handle, chunk)
                except OSError as error:
                    raise self._disk(error) from error
                have += len(chunk)
                window += len(chunk)
                bar.update(len(chunk))
                if (spent := time.monotonic() - since) > self.patience.timeout_s:
                    if window < SLOWEST * spent:
                        raise _Broken(f"slower than {SLOWEST} bytes per second after {have} of {whole} bytes")
                    window, since = 0, time.monotonic()
            if self._more(response):
                raise WeightsError(f"{self.url} sent more than {whole} bytes: refused")

    def _more(self, response: Any) -> bool:
        """Whether an answer that did not state its length goes on after the last byte expected."""
        try:
            return response.headers.get("Content-Length") is None and bool(response.read1(1))
        except (http.client.HTTPException, OSError):
            return False

    def _file(self, have: int) -> IO[bytes]:
        """The temporary file, cut to `have` bytes and open for writing on."""
        try:
            handle = self.temporary.open("r+b" if self.temporary.exists() else "w+b")
            handle.truncate(have)
            handle.seek(have)
            return handle
        except OSError as error:
            raise self._disk(error) from error

    def _disk(self, error: OSError) -> ResourceError:
        return ResourceError(
            f"{self.target}: cannot be written: {error.strerror or error}. Free some space or set weights.folder."
        )


def _append(handle: IO[bytes], chunk: bytes) -> None:
    handle.write(chunk)
    handle.flush()  # what counts as received is what lies in the file


def _say(error: BaseException) -> str:
    return "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
