"""A tracking server that answers as MLflow's does, until it is told to be slow, to be wrong, or to be away."""

from __future__ import annotations

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from experiments.benchmarks.reload_versions import ALIAS, NAME, Versions
from widedeep.bundle import DIGEST_TAG

REGISTRY = "/api/2.0/mlflow/"
ERRORS = {
    "html": (200, b"<html><body>Please sign in.</body></html>"),
    "500": (500, b'{"error_code": "INTERNAL_ERROR", "message": "out of connections"}'),
    "401": (401, b"who are you?"),
    "no JSON": (200, b'{"model_version": {"name": "'),
    "other JSON": (200, b'{"model_version": 7, "registered_models": "none"}'),
}
LATE = ("slow", "silent")
MODES = (*ERRORS, "cut off", *LATE, "refused")


class Tracking:
    """As a context manager: it listens.

    mode    one of MODES; empty: all is well
    served  the version that the alias means
    digest  that versions are said to be registered with; empty: none
    """

    def __init__(self, versions: Versions, delay: float) -> None:
        """delay  seconds that an answer takes when it is slow; a silent one never comes"""
        self.mode = ""
        self.served = versions.good[0]
        self.digest = ""
        self._sources = {
            version: versions.client.get_model_version(NAME, version).source for version in versions.good
        }
        self._delay = delay
        self._released = threading.Event()
        self._http: ThreadingHTTPServer | None = None
        self._port = 0

    def __enter__(self) -> Tracking:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self.refuse()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """On the port that it had before, if it had one."""
        tracking = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                tracking._answer(self)

            do_POST = do_GET

            def log_message(self, *_: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._http.daemon_threads = True
        self._port = self._http.server_address[1]
        threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True).start()

    def refuse(self) -> None:
        """Listen no longer."""
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
            self._http = None

    def become(self, mode: str) -> None:
        """Behave so from now on; those who wait for an answer are let go."""
        self._released.set()
        if self.mode == "refused":
            self.listen()
        self.mode, self._released = mode, threading.Event()
        if mode == "refused":
            self.refuse()

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        mode, released = self.mode, self._released
        if mode in LATE:
            released.wait(self._delay if mode == "slow" else None)
        code, body = ERRORS.get(mode) or self._said(request.path)
        try:
            request.send_response(code)
            request.send_header("Content-Type", "text/html" if mode == "html" else "application/json")
            request.send_header("Content-Length", str(len(body)))
            request.end_headers()
            request.wfile.write(body[: len(body) // 2] if mode == "cut off" else body)
        except OSError:
            request.close_connection = True  # who asked has given up

    def _said(self, path: str) -> tuple[int, bytes]:
        where, _, query = path.partition("?")
        given = dict(urllib.parse.parse_qsl(query))
        said: Any
        if where == f"{REGISTRY}registered-models/search":
            said = {"registered_models": [{"name": NAME}]}
        elif where == f"{REGISTRY}registered-models/get":
            said = {"registered_model": {"name": NAME}}
        elif where == f"{REGISTRY}registered-models/alias" and given.get("alias") == ALIAS:
            said = {"model_version": self._version(self.served)}
        elif where == f"{REGISTRY}model-versions/get":
            said = {"model_version": self._version(given["version"])}
        elif where == f"{REGISTRY}model-versions/get-download-uri":
            said = {"artifact_uri": self._sources[given["version"]]}
        else:
            return 404, json.dumps({"error_code": "ENDPOINT_NOT_FOUND", "message": where}).encode()
        return 200, json.dumps(said).encode()

    def _version(self, version: str) -> dict[str, Any]:
        tags = [{"key": DIGEST_TAG, "value": self.digest}] if self.digest else []
        return {
            "name": NAME,
            "version": version,
            "source": self._sources[version],
            "creation_timestamp": 1,
            "status": "READY",
            "tags": tags,
        }
