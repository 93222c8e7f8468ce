"""The client and its command line, against a real server."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from serving import Running, recommender, running

from server.client import Client, ClientError
from server.client.__main__ import main
from server.client.table import printable

pytest_plugins = ["serving_fixtures"]
ROOT = Path(__file__).parent.parent


def say(server: Running, *arguments: str) -> int:
    return main([arguments[0], "--target", server.target, *arguments[1:]])


def test_recommend(server: Running) -> None:
    offline = recommender().recommend(1, k=5)
    with Client(server.target) as client:
        answer = client.recommend(1, k=5, request_id="q")
    assert [item.item_id for item in answer.items] == [str(item) for item in offline.item_ids]
    assert [item.score for item in answer.items] == pytest.approx(offline.scores, rel=1e-6)
    assert [item.rank for item in answer.items] == [1, 2, 3, 4, 5]
    first = answer.items[0]
    assert (first.title, first.genres) == (f"Film {first.item_id}", ("Comedy", "Drama"))
    assert first.year == 1990 + int(first.item_id) % 20
    assert (answer.cold_start, answer.unknown_items, answer.request_id) == ("", (), "q")
    assert answer.model.name == "model.pth"


def test_options_reach_the_server(server: Running) -> None:
    with Client(server.target) as client:
        everything = client.recommend("1", k=100, exclude_seen=False)
        assert len(everything.items) == 30
        assert len(client.recommend("1", k=100).items) < 30
        without = client.recommend("1", k=100, exclude_seen=False, exclude=[1, "2"], details=False)
        assert not {"1", "2"} & {item.item_id for item in without.items}
        assert without.items[0].title == ""
        some = client.recommend(candidates=[3, "x"], genres=["Drama"], year_from=1993, year_to=1993)
        assert [item.item_id for item in some.items] == ["3"]
        assert some.unknown_items == ("x",)
        assert some.cold_start == "NO_USER"
        assert client.recommend(1, genres=["Action"], candidates=[1]).items == ()
        disliked = client.recommend(history=[2, 4, 1], ratings=[1, 1, 5])
        assert disliked.items[0].item_id in {str(item) for item in range(1, 31, 2)}
        assert client.recommend(history=[]).cold_start == "NO_USER"


def test_reasons(server: Running) -> None:
    offline = recommender().recommend(1, k=5, explain=3)
    with Client(server.target) as client:
        answer = client.recommend(1, k=5, explain=3)
        bare = client.recommend(1, k=5, explain=3, details=False)
        assert client.recommend(1, k=5).items[0].reasons == ()
        assert [item.reasons for item in client.recommend(k=2, explain=3).items] == [(), ()]
    for item, plain, reasons in zip(answer.items, bare.items, offline.reasons, strict=True):
        assert [reason.item_id for reason in item.reasons] == [str(reason.item_id) for reason in reasons]
        assert [reason.title for reason in item.reasons] == [f"Film {reason.item_id}" for reason in reasons]
        assert [reason.contribution for reason in item.reasons] == pytest.approx(
            [reason.contribution for reason in reasons]
        )
        assert [reason.wide for reason in item.reasons] == pytest.approx([reason.wide for reason in reasons])
        assert {reason.title for reason in plain.reasons} <= {""}


def test_diversity(server: Running) -> None:
    with Client(server.target) as client:
        varied = client.recommend(1, k=4, exclude_seen=False, diversity=1, include_cold_items=True)
    assert len({item.genres for item in varied.items}) == 2


def test_score(server: Running) -> None:
    with Client(server.target) as client:
        answer = client.score(3, [5, 6], request_id="s")
        swapped = client.score(
            "3", ["5", "6"], history=np.array([2, 4, 6, 8]), ratings=np.array([5.0, 5, 5, 5])
        )
    assert [item.score for item in answer.items] == pytest.approx(recommender().score(3, [5, 6]), rel=1e-6)
    assert [(item.item_id, item.title) for item in answer.items] == [("5", "Film 5"), ("6", "Film 6")]
    assert answer.request_id == "s"
    assert swapped.items[1].score > answer.items[1].score


def test_info_and_health(server: Running) -> None:
    with Client(server.target) as client:
        info = client.info()
        assert (info.user_count, info.item_count, info.like_threshold, info.device) == (40, 30, 4.0, "cpu")
        assert client.health() == "SERVING"
        assert client.health("widedeep.v1.Recommender") == "SERVING"
        with pytest.raises(ClientError) as caught:
            client.health("something.else")
    assert caught.value.code == "NOT_FOUND"


@pytest.mark.parametrize(
    ("options", "code", "field"),
    [
        ({"k": 0}, "INVALID_ARGUMENT", "k"),
        ({"k": 10**12}, "INVALID_ARGUMENT", ""),
        ({"candidates": ["x"]}, "NOT_FOUND", "candidate_item_ids"),
        ({"history": [1], "ratings": [float("nan")]}, "INVALID_ARGUMENT", "history.ratings[0]"),
        ({"ratings": [1.0]}, "INVALID_ARGUMENT", "history.ratings"),
        ({"genres": [7]}, "INVALID_ARGUMENT", ""),
        ({"explain": 101}, "INVALID_ARGUMENT", "explain"),
        ({"diversity": 2}, "INVALID_ARGUMENT", "diversity"),
        ({"include_cold_items": "yes"}, "INVALID_ARGUMENT", ""),
    ],
)
def test_errors_of_the_server(server: Running, options: dict[str, object], code: str, field: str) -> None:
    with Client(server.target) as client, pytest.raises(ClientError) as caught:
        client.recommend("1", **options)  # type: ignore[arg-type]
    assert (caught.value.code, caught.value.field) == (code, field)
    assert "\n" not in str(caught.value)


def test_table(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "recommend", "--user-id", "1", "--k", "3") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("3 items for user 1, by model.pth version ")
    assert lines[2].split() == ["rank", "item", "title", "score", "genres"]
    offline = recommender().recommend(1, k=3)
    for rank, (line, item, score) in enumerate(
        zip(lines[3:], offline.item_ids, offline.scores, strict=True), 1
    ):
        assert line.split() == [str(rank), str(item), "Film", str(item), f"{score:.4f}", "Comedy,", "Drama"]


def test_because(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--explain", "2", "--diversity", "0.5", "--include-cold-items"]
    assert say(server, "recommend", "--user-id", "1", "--k", "3", *flags) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    offline = recommender().recommend(1, k=3, explain=2, diversity=0.5, include_cold_items=True)
    expected = []
    for item, reasons in zip(offline.item_ids, offline.reasons, strict=True):
        expected.append(f"Film {item} ")
        if reasons:
            expected.append("because you liked " + ", ".join(f"Film {reason.item_id}" for reason in reasons))
    assert len(lines) == len(expected) > 3
    for line, part in zip(lines, expected, strict=True):
        assert part in f"{line} "
    assert say(server, "recommend", "--user-id", "1", "--k", "3", "--explain", "1", "--json") == 0
    reason = json.loads(capsys.readouterr().out)["items"][0]["reasons"][0]
    assert set(reason) == {"item_id", "title", "contribution", "wide"}


def test_score_table(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "score", "--user-id", "1", "--item-ids", "2, 1") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].split() == ["rank", "item", "title", "like", "genres"]
    assert [line.split()[1] for line in lines[3:]] == ["2", "1"]


def test_cold_starts_and_unknown_items_are_said(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "recommend", "--user-id", "nobody", "--candidates", "1,x,y") == 0
    out = capsys.readouterr().out
    assert "Not personal: the model does not know this user" in out
    assert "Unknown to the model: x, y" in out
    assert say(server, "recommend", "--user-id", "1", "--year-from", "2030") == 0
    assert "No item is left after the filters." in capsys.readouterr().out


def test_json(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "recommend", "--history", "2,4,6", "--ratings", "5,5,4.5", "--k", "2", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert [int(item["item_id"]) % 2 for item in answer["items"]] == [0, 0]
    assert say(server, "info", "--json") == 0
    assert json.loads(capsys.readouterr().out)["user_count"] == 40
    assert say(server, "health", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"status": "SERVING"}


def test_info_table(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "info") == 0
    out = capsys.readouterr().out
    assert "a rating of 4 or more" in out
    assert out.startswith("model ")


def test_a_refusal_is_one_line(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "recommend", "--user-id", "1", "--k", "0") == 1
    assert capsys.readouterr().err == "error: INVALID_ARGUMENT: k: must be from 1 to 1000, got 0.\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ["recommend", "--diversity", "much"],
        ["recommend", "--explain"],
        [],
        ["score"],
        ["recommend", "--ratings", "a"],
        ["info", "--timeout", "0"],
        ["info", "--target", ""],
        ["guess"],
    ],
)
def test_unusable_flags(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: python -m server.client" in capsys.readouterr().err


def test_no_server(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        target = f"127.0.0.1:{free.getsockname()[1]}"
        assert main(["info", "--target", target]) == 1
    error = capsys.readouterr().err
    assert f"cannot reach a server at {target}" in error
    assert "python -m server --model" in error


def test_a_server_that_never_answers(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        begun = time.monotonic()
        target = f"127.0.0.1:{mute.getsockname()[1]}"
        assert main(["info", "--target", target, "--timeout", "0.5"]) == 1
    assert time.monotonic() - begun < 5
    assert f"no answer from {target} within 0.5 s" in capsys.readouterr().err


def test_a_server_that_still_loads(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running(bundle, load=False) as loading:
        assert say(loading, "health") == 1
        assert capsys.readouterr().out == "NOT_SERVING\n"
        assert say(loading, "recommend") == 1
    assert "UNAVAILABLE: The server is loading its model" in capsys.readouterr().err


def test_a_title_cannot_drive_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc é") == "a [2Jb c é"


def test_the_client_needs_neither_torch_nor_mlflow(server: Running) -> None:
    code = (
        "import sys; from server.client.__main__ import main; "
        f"assert main(['recommend', '--target', {server.target!r}, '--user-id', '1']) == 0; "
        "bad = {'torch', 'mlflow', 'numpy', 'pandas', 'widedeep', 'experiments'} & set(sys.modules); "
        "assert not bad, bad"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Film" in done.stdout


def test_output_may_be_cut_off(server: Running) -> None:
    """As with `… | head -1`."""
    command = (
        f"{sys.executable} -m server.client recommend --target {server.target} --user-id 1 --json | true"
    )
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
