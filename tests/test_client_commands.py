"""Flags and output of the commands that tests/test_client.py does not ask for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import grpc
import pytest
from client_servers import Certificate, Servicer, serving
from serving import Running

from server.client.__main__ import main
from server.pb import recommender_pb2 as pb

pytest_plugins = ["serving_fixtures"]


def say(server: Running, *arguments: str) -> int:
    return main([arguments[0], "--target", server.target, *arguments[1:]])


def test_similar(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "similar", "--item-ids", "3", "--k", "4", "--exclude", "5", "--genre", "Drama") == 0
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"4 items like 3, by model\.pth version [0-9a-f]{12}", lines[0])
    assert lines[2].split() == ["rank", "item", "title", "similarity", "genres"]
    assert len(lines) == 7
    assert not {"3", "5"} & {line.split()[1] for line in lines[3:]}
    assert say(server, "similar", "--item-ids", "3", "--request-id", "q", "--json") == 0
    assert json.loads(capsys.readouterr().out)["request_id"] == "q"
    assert say(server, "similar", "--item-ids", "x") == 1
    assert "error: NOT_FOUND" in capsys.readouterr().err


def test_models(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "models") == 0
    header, line = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"model +state +since +in use +why", header)
    assert re.match(r"model\.pth version [0-9a-f]{12} +serving +20\S+ +\d+$", line)
    assert say(server, "models", "--json") == 0
    assert [status["state"] for status in json.loads(capsys.readouterr().out)] == ["SERVING"]


def test_a_refused_version_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    class Listing(Servicer):
        def ListModels(self, _: pb.ListModelsRequest, __: Any) -> pb.ListModelsResponse:
            version = pb.ModelVersion(name="w", version="2", alias="champion")
            return pb.ListModelsResponse(
                models=[
                    pb.ModelStatus(
                        model=version, state=pb.MODEL_STATE_SERVING, lease_count=1234, since="2026"
                    ),
                    pb.ModelStatus(
                        model=pb.ModelVersion(name="w", version="10"),
                        state=pb.MODEL_STATE_REFUSED,
                        reason="scores\x1b[2J differ",
                    ),
                ]
            )

    with serving(Listing()) as target:
        assert main(["models", "--target", target]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "model                   state    since  in use  why",
        "w version 2 (champion)  serving  2026     1234",
        "w version 10            refused              0  scores [2J differ",
    ]


def test_fallback(server: Running, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(server, "recommend", "--user-id", "nobody", "--fallback", "popularity") == 0
    capsys.readouterr()
    assert say(server, "recommend", "--user-id", "nobody", "--fallback", "error") == 1
    assert say(server, "score", "--user-id", "nobody", "--item-ids", "1", "--fallback", "error") == 1
    assert capsys.readouterr().err.count("error: FAILED_PRECONDITION") == 2


def test_the_ranking_and_the_registry_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    said = pb.GetModelResponse(
        ranking=pb.RankingMethod(precision="float32", precision_agreement=1, approximate=True, recall=0.9912),
        registry=pb.RegistryStatus(
            following=True, error="no route", seconds_since_answer=7.25, from_cache=True, reload_count=3
        ),
    )
    with serving(Servicer(lambda _: said)) as target:
        assert main(["info", "--target", target]) == 0
    out = capsys.readouterr().out
    assert re.search(r"^ranking +from candidates, recall 0\.9912, in float32 \(top 100 as by float32: 1\.0000\)$",
                     out, re.MULTILINE)  # fmt: skip
    assert re.search(
        r"^registry +followed; not reachable: no route; answered 7\.2 s ago; this version is from the cache; "
        r"3 reloads, 0 refused, 0 failures$",
        out,
        re.MULTILINE,
    )


def test_the_token_comes_from_a_file_or_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").write_text("from-file\n")
    (tmp_path / "empty").write_text("\n")
    monkeypatch.setenv("WIDEDEEP_TOKEN", "from-environment")
    with serving(servicer := Servicer()) as target:
        assert main(["info", "--target", target]) == 0
        assert main(["info", "--target", target, "--token-file", str(tmp_path / "token")]) == 0
        assert main(["info", "--target", target, "--token-file", str(tmp_path / "empty")]) == 1
        assert main(["info", "--target", target, "--token-file", str(tmp_path / "missing")]) == 1
    assert [metadata["authorization"] for metadata in servicer.metadata] == [
        "Bearer from-environment", "Bearer from-file",
    ]  # fmt: skip
    errors = capsys.readouterr().err
    assert f"--token-file: {tmp_path / 'empty'} is empty" in errors
    assert f"--token-file: cannot read {tmp_path / 'missing'}" in errors
    assert main(["info", "--target", "10.0.0.1:1"]) == 1
    assert "unencrypted" in capsys.readouterr().err


def test_tls_by_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    certificate = Certificate.make(tmp_path, "both")
    credentials = grpc.ssl_server_credentials(
        [certificate.pair], certificate.cert.read_bytes(), require_client_auth=True
    )
    own = ["--cert", str(certificate.cert), "--key", str(certificate.key)]
    with serving(Servicer(), credentials) as target:
        assert main(["info", "--target", target, "--ca", str(certificate.cert), *own]) == 0
        assert main(["info", "--target", target, "--tls", *own]) == 1
    assert "CERTIFICATE_VERIFY_FAILED" in capsys.readouterr().err
