"""A server of archives on this machine that can misbehave the ways that networks do."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class ArchiveServer(ThreadingHTTPServer):
    """Serves `files`; `behaviour` is how they come: whole, cut, slow, silent, boundless."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.behaviour = "whole"
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"


@contextmanager
def running() -> Iterator[ArchiveServer]:
    with ArchiveServer() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


class _Handler(BaseHTTPRequestHandler):
    server: ArchiveServer

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        content = self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        if self.server.behaviour == "silent":
            self.connection.settimeout(30)
            self.connection.recv(1)  # until the other side hangs up
            return
        self.send_response(200)
        self.send_header("Content-Length", "?" if self.server.behaviour == "boundless" else str(len(content)))
        self.end_headers()
        if self.server.behaviour == "cut":
            content = content[: len(content) // 2]
        step = 50 if self.server.behaviour == "slow" else len(content)
        for start in range(0, len(content), step):
            try:
                self.wfile.write(content[start : start + step])
            except OSError:  # the other side gave up, as it should
                return
            if self.server.behaviour == "slow":
                time.sleep(0.1)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: pytest's output is for failures."""
