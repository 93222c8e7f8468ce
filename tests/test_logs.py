"""The log: one object a line, whose request it was, and no flood."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from serving import eventually, recommend, running, score_message

from server.__main__ import main
from server.logs import JsonFormatter, TextFormatter
from server.pb import recommender_pb2 as pb
from server.pb import recommender_pb2_grpc as pb_grpc
from server.served import ServedModel

pytest_plugins = ["serving_fixtures"]
ROOT = Path(__file__).parent.parent
METHOD = "widedeep.v1.Recommender/Recommend"


class Lines(logging.Handler):
    """What a formatter makes of each record, in the thread that logs it."""

    def __init__(self, formatter: logging.Formatter) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    def objects(self, logger: str = "server.requests") -> list[dict[str, Any]]:
        return [line for line in map(json.loads, list(self.lines)) if line["logger"] == logger]


@pytest.fixture
def lines(request: pytest.FixtureRequest) -> Iterator[Lines]:
    handler = Lines(getattr(request, "param", JsonFormatter)())
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


def fails(call: Any) -> None:
    with pytest.raises(grpc.RpcError):
        call()


def test_a_failed_request_has_a_line_with_its_id(bundle: Path, lines: Lines) -> None:
    with running(bundle) as started, started.stub() as stub:
        recommend(stub, user_id="1", request_id="fine")
        fails(lambda: stub.Recommend(pb.RecommendRequest(k=-1, request_id='"\n{')))
        metadata = (("x-request-id", "from the metadata"),)
        fails(lambda: stub.Score(pb.ScoreRequest(item_ids=["x"]), metadata=metadata))
        messages = [score_message(["1"]), score_message(["x"], request_id="m")]
        list(stub.ScoreStream(iter(messages), metadata=metadata))
        assert eventually(lambda: len(lines.objects()) == 3)
    bad_k, unknown, message = lines.objects()
    assert bad_k["method"] == METHOD
    assert (bad_k["code"], bad_k["request_id"], bad_k["level"]) == ("INVALID_ARGUMENT", '"\n{', "WARNING")
    assert bad_k["error"] == "k: must be from 1 to 1000, got -1."
    assert 0 <= bad_k["seconds"] < 60
    assert bad_k["peer"].startswith("ipv4:127.0.0.1:")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", bad_k["time"])
    assert (unknown["code"], unknown["request_id"]) == ("NOT_FOUND", "from the metadata")
    assert (message["code"], message["request_id"]) == ("NOT_FOUND", "m")
    assert message["method"] == "widedeep.v1.Recommender/ScoreStream message"
    assert not any("\n" in line for line in lines.lines)


def test_all_requests_have_lines_or_none(bundle: Path, lines: Lines) -> None:
    with running(bundle, log_requests="all") as started, started.stub() as stub:
        recommend(stub, user_id="1", k=3, request_id="r")
        list(stub.ScoreStream(iter([score_message(["1", "2"])])))
        assert eventually(lambda: len(lines.objects()) == 3)
        version = started.server.store.current.version  # type: ignore[union-attr]
    ranking, scores, stream = lines.objects()
    assert (ranking["code"], ranking["items"], ranking["model_version"]) == ("OK", 3, version)
    assert (ranking["request_id"], ranking["level"]) == ("r", "INFO")
    assert (scores["items"], scores["model_version"]) == (2, version)
    assert "items" not in stream
    lines.lines.clear()
    with running(bundle, log_requests="off") as started, started.stub() as stub:
        fails(lambda: stub.Recommend(pb.RecommendRequest(k=-1)))
    assert not lines.objects()


def test_an_incident_has_its_request_and_its_reason(
    bundle: Path, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("of the model")

    with running(bundle) as started, started.stub() as stub:
        monkeypatch.setattr(ServedModel, "recommend", broken)
        with pytest.raises(grpc.RpcError) as caught:
            stub.Recommend(pb.RecommendRequest(user_id="1", request_id="r-1"))
    (line,) = lines.objects("server.status")
    assert line["incident"] in (caught.value.details() or "")
    assert (line["request_id"], line["level"]) == ("r-1", "ERROR")
    assert "ZeroDivisionError: of the model" in line["exception"]
    (after,) = lines.objects()
    assert (after["code"], after["request_id"]) == ("INTERNAL", "r-1")
    assert "of the model" not in json.dumps(after)


def test_a_storm_of_errors_is_counted_and_not_written(bundle: Path, lines: Lines) -> None:
    with running(bundle, log_requests_most=5) as started, started.stub() as stub:
        messages = [score_message(["x"], request_id=str(number)) for number in range(500)]
        assert len(list(stub.ScoreStream(iter(messages)))) == 500

        def told() -> tuple[int, int]:
            requests = lines.objects()
            left_out = [re.match(r"(\d+) more requests", line["message"]) for line in requests]
            written = sum("code" in line for line in requests)
            return written, written + sum(int(found[1]) for found in left_out if found)

        assert eventually(lambda: told()[1] == 500), told()
        assert told()[0] < 250, "of a machine that takes fifty seconds for them"
        assert all("request_id" not in line for line in lines.objects() if "code" not in line)


@pytest.mark.parametrize("lines", [TextFormatter], indirect=True)
def test_a_line_for_people_quotes_what_came_from_outside(bundle: Path, lines: Lines) -> None:
    with running(bundle) as started, started.stub() as stub:
        fails(lambda: stub.Recommend(pb.RecommendRequest(k=-1, request_id="a\n2026 ERROR forged")))
        assert eventually(lambda: any("INVALID_ARGUMENT" in line for line in lines.lines))
    (line,) = [line for line in lines.lines if "INVALID_ARGUMENT" in line]
    assert re.search(
        rf"WARNING {METHOD} INVALID_ARGUMENT after \d+\.\d ms request_id=\"a\\n2026 ERROR forged\"", line
    )
    assert "\n" not in line


def test_every_line_of_a_process_is_an_object(bundle: Path) -> None:
    command = [sys.executable, "-m", "server", "--model", str(bundle), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--log-format", "json"], cwd=ROOT, stderr=subprocess.PIPE, text=True, env=dict(os.environ)
    )
    assert process.stderr is not None
    found = []
    try:
        for line in process.stderr:
            found.append(json.loads(line))
            if at := re.fullmatch(r"serving on (\S+)", found[-1]["message"]):
                with grpc.insecure_channel(at[1]) as channel:
                    fails(lambda: pb_grpc.RecommenderStub(channel).Score(pb.ScoreRequest(request_id="r")))
                process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    assert [line["request_id"] for line in found if line["logger"] == "server.requests"] == ["r"]
    assert found[-1]["message"] == "stopped"


@pytest.fixture
def own_logging() -> Iterator[None]:
    """The log of the whole process may be configured; it is put back."""
    root, hook, variable = logging.getLogger(), sys.excepthook, os.environ.get("MLFLOW_CONFIGURE_LOGGING")
    handlers, level = list(root.handlers), root.level
    for handler in handlers:
        root.removeHandler(handler)  # else it would be closed
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    sys.excepthook = hook
    if variable is None:
        os.environ.pop("MLFLOW_CONFIGURE_LOGGING", None)


@pytest.mark.usefixtures("own_logging")
def test_the_last_words_are_an_object_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "missing.pth")
    assert main(["--model", missing, "--port", "0", "--device", "cpu", "--log-format", "json"]) == 2
    last = json.loads(capsys.readouterr().err.splitlines()[-1])
    assert last["level"] == "CRITICAL"
    assert "missing.pth does not exist" in last["message"]
