"""MLflow's own server in a process, and what may go wrong between it and us."""

from __future__ import annotations

import contextlib
import http.client
import os
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from ports import free_port

MODES = ("refused", "a page", "silent", "answer lost")


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int = 0, **environment: str) -> Iterator[str]:
    """Its address. Its store is mlflow.db in `folder`, and artifacts go through it."""
    port = port or free_port()
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port),
               "--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--serve-artifacts",
               "--artifacts-destination", str(folder / "artifacts")]  # fmt: skip
    settings = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", **environment}
    log = (folder / "log.txt").open("wb")
    process = subprocess.Popen(command, env=settings, stdout=log, stderr=subprocess.STDOUT, cwd=folder)
    try:
        end = time.monotonic() + 180  # ten seconds on a machine with nothing else to do
        while True:
            try:
                with urllib.request.urlopen(f"{uri}/health", timeout=2):
                    break
            except OSError:
                assert process.poll() is None, (folder / "log.txt").read_text()
                assert time.monotonic() < end, (folder / "log.txt").read_text()
                time.sleep(0.2)
        yield uri
    finally:
        process.terminate()
        process.wait(20)
        log.close()


class Between:
    """Hands requests on to a server and answers back, or fails in one of MODES.

    The last of them is what no client can tell from a failure: the server does it, and its answer is lost.
    """

    def __init__(self, server: str) -> None:
        self.mode = ""
        self._server = server.removeprefix("http://")
        self._released = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._port = self._pages = 0
        self._listen()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def become(self, mode: str) -> None:
        """Empty: all is well."""
        self._released.set()
        self._released = threading.Event()
        if self.mode == "refused" and mode != "refused":
            self._listen()
        if mode == "refused" and self.mode != "refused":
            self.close()
        self.mode = mode

    def close(self) -> None:
        self._released.set()
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def _listen(self) -> None:
        between = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                with contextlib.suppress(OSError):
                    between._answer(self)

            do_GET = do_POST = do_PUT = do_PATCH = handle_any

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.daemon_threads = True
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        mode, released = self.mode, self._released
        body = request.rfile.read(int(request.headers.get("Content-Length") or 0))
        if mode == "silent":
            released.wait()
            request.close_connection = True
        elif mode == "a page":  # a proxy's, now with one status and now with another
            page = b"<html>Nobody is at home.</html>"
            self._pages += 1
            request.send_response(502 if self._pages % 2 else 404)
            request.send_header("Content-Length", str(len(page)))
            request.end_headers()
            request.wfile.write(page)
        else:
            connection = http.client.HTTPConnection(self._server, timeout=60)
            headers = {
                key: value for key, value in request.headers.items() if key not in ("Host", "Connection")
            }
            connection.request(request.command, request.path, body, headers)
            found = connection.getresponse()
            answer = found.read()
            connection.close()
            if mode == "answer lost":
                request.close_connection = True
                return
            request.send_response(found.status)
            request.send_header("Content-Type", found.headers.get("Content-Type", "application/json"))
            request.send_header("Content-Length", str(len(answer)))
            request.end_headers()
            request.wfile.write(answer)
