"""What is wrong with a store is said in words, and never with a password."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import pytest
from experiment_runs import run
from mlflow.tracking import MlflowClient

from experiments import aliases, next_commands, registry
from experiments.store import check_store
from experiments.tracking import open_run
from widedeep.errors import RegistryError, TrackingError
from widedeep.store_trouble import masked, trouble, without_user

pytest_plugins = ["experiment_fixtures"]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("postgresql+psycopg://ann:se/cr:e@t@host:5432/db away", "postgresql+psycopg://ann:***@host:5432/db away"),
        ("--storage=postgresql://ann:12345@host/optuna", "--storage=postgresql://ann:***@host/optuna"),
        ("postgresql://ann:12/a#b@host/db", "postgresql://ann:***@host/db"),
        ("host=db password='a b' user=ann", "host=db password=*** user=ann"),
        ('"http://ann:secret@host:5000"', '"http://ann:***@host:5000"'),
        ("postgresql://host/a?user=ann&password=secret&port=1", "postgresql://host/a?user=ann&password=***&port=1"),
        ("host=db PASSWORD=secret user=ann", "host=db PASSWORD=*** user=ann"),
    ],
)  # fmt: skip
def test_passwords_are_masked(text: str, shown: str) -> None:
    assert masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000/#/models for models:/m@champion",
        "http://host:5000/#/models/m@champion",
        "postgresql://ann@host/mlflow, sqlite:////a/b.db, C:\\x@y",
    ],
)
def test_what_is_no_password_stays(text: str) -> None:
    assert masked(text) == text


def test_an_address_for_the_browser_names_no_user() -> None:
    assert without_user("http://ann:secret@host:5000") == "http://host:5000"
    assert without_user("http://host:5000") == "http://host:5000"


class Answers(BaseHTTPRequestHandler):
    """Of MLflow's server with basic auth, as they came from one: (status, body, type) by the end of the path."""

    said: ClassVar[dict[str, tuple[int, str, str]]] = {}

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        status, body, kind = next(
            (answer for end, answer in self.said.items() if path.endswith(end)),
            (200, "{}", "application/json"),
        )
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_: object) -> None:
        pass


UNKNOWN_USER = (
    401,
    "You are not authenticated. Please see https://www.mlflow.org/docs/latest/auth",
    "text/html",
)
DENIED = (403, "Permission denied", "text/plain")
NO_DATABASE = (
    503,
    '{"error_code": "TEMPORARILY_UNAVAILABLE", "message": "connection failed"}',
    "application/json",
)
NO_MODEL = (404, '{"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "no such model"}', "application/json")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Answers]]:
    Answers.said = {}
    listening = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://ann:the-password@127.0.0.1:{listening.server_port}")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "ann")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    try:
        yield Answers
    finally:
        listening.shutdown()
        thread.join()
        listening.server_close()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (UNKNOWN_USER, "it does not know the user 'ann' with this password (401).\nSet MLFLOW_TRACKING_USERNAME"),
        (DENIED, "the user 'ann' has no permission for that (403).\nWho manages the experiment"),
        (NO_DATABASE, "the server answers, but has no database (503).\nIts log says why"),
        ((403, "Invalid Host header - possible DNS rebinding attack detected", "text/plain"), "--allowed-hosts"),
    ],
)  # fmt: skip
def test_each_refusal_says_what_to_do(server: type[Answers], answer: tuple[int, str, str], said: str) -> None:
    server.said = {"experiments/search": answer}
    with pytest.raises(TrackingError) as refusal:
        check_store()
    assert said in str(refusal.value)
    assert "ann:***@127.0.0.1" in str(refusal.value)
    assert "the-password" not in str(refusal.value)
    done = run("train", "--dataset", "synthetic")
    assert done.status == 2
    assert said in done.err
    assert "the-password" not in done.out + done.err


def test_a_model_that_there_is_not_is_told_from_one_that_is_forbidden(server: type[Answers]) -> None:
    server.said = {
        "registered-models/alias": DENIED,
        "registered-models/get": NO_MODEL,
        "registered-models/delete-tag": NO_MODEL,
    }
    assert aliases.aliased("m", "champion") is None
    registry.check_may_write("m")
    server.said = {"registered-models/alias": DENIED, "registered-models/delete-tag": DENIED}
    with pytest.raises(RegistryError, match=r"look up m@champion: the user 'ann' has no permission"):
        aliases.aliased("m", "champion")
    with pytest.raises(
        RegistryError, match="write to the registered model m: the user 'ann' has no permission"
    ):
        registry.check_may_write("m")


def test_files_that_the_server_does_not_pass_on_are_told_from_a_server_that_is_away() -> None:
    away = (
        "Max retries exceeded with url: /api/2.0/mlflow-artifacts/artifacts/2/a.txt (Caused by ProtocolError)"
    )
    assert "does not pass files on" in trouble(OSError(away)).reason
    assert (
        trouble(OSError("NewConnectionError: /api/2.0/mlflow-artifacts/a")).reason
        == "nothing answers at that address"
    )


def test_a_database_with_another_password_is_noticed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql+psycopg://ann:the-password@127.0.0.1:9/mlflow")
    with pytest.raises(
        TrackingError, match=r"ann:\*\*\*@127.0.0.1:9/mlflow: .*Connection refused"
    ) as refusal:
        check_store()
    assert "the-password" not in str(refusal.value)
    text = '(psycopg.OperationalError) failed: FATAL:  password authentication failed for user "ann"\n(Background'
    assert "PGPASSWORD" in trouble(OSError(text)).advice


def test_what_a_run_holds_has_no_password(store: MlflowClient) -> None:
    address = "postgresql://ann:the-password@host/optuna"
    with open_run("a", "b") as opened:
        opened.params("job", {"storage": address})
        opened.tags({"storage": address})
        opened.json({"storage": address}, "config.json")
    found = store.get_run(opened.id).data
    assert found.params["job.storage"] == found.tags["storage"] == "postgresql://ann:***@host/optuna"
    written = store.download_artifacts(opened.id, "config.json")
    with open(written) as file:
        assert "ann:***@host" in file.read()


@pytest.mark.parametrize(
    ("uri", "word", "prefix"),
    [
        ("http://host:5000", "http://host:5000", "MLFLOW_TRACKING_URI=http://host:5000 "),
        ("http://ann:secret@host:5000", '"$MLFLOW_TRACKING_URI"', ""),
        ("postgresql://ann:secret@host/mlflow", '"$MLFLOW_TRACKING_URI"', ""),
    ],
)  # fmt: skip
def test_commands_to_copy_name_the_variable_where_there_is_a_password(
    monkeypatch: pytest.MonkeyPatch, uri: str, word: str, prefix: str
) -> None:
    monkeypatch.setattr(next_commands.mlflow, "get_tracking_uri", lambda: uri)
    assert next_commands._store_word() == word
    assert next_commands.store_prefix() == prefix
