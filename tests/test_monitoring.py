"""The dashboard and the alerts of examples/monitoring, in a real Prometheus that reads a real server."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
import threading
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from metrics_text import read
from ports import free_port
from registries import NAME, Releases, registry
from serving import Running, eventually, recommend, running, score_message

from server.pb import recommender_pb2 as pb

FOLDER = Path(__file__).parent.parent / "examples" / "monitoring"
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
ALERTS = [
    rule for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"] for rule in group["rules"]
]
OF_GPUS = "widedeep_device_memory"  # what a server without one has not
OF_PROMETHEUS = {"up"}
needs_prometheus = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="needs prometheus and promtool: apt-get install prometheus",
)


def expressions() -> list[str]:
    """Of the dashboard, with what Grafana fills in."""
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    return [expr.replace("$__rate_interval", "10s").replace("$job", "widedeep") for expr in found]


def names_in(expression: str) -> set[str]:
    return set(re.findall(r"\b(?:widedeep|grpc_server|process)_\w+|\bup\b", expression))


class Prometheus:
    """A running one, by its HTTP API."""

    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}"

    def get(self, path: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self._url}{path}?{query}", timeout=10) as answer:
            return json.load(answer)["data"]

    def is_ready(self) -> bool:
        with suppress(OSError), urllib.request.urlopen(f"{self._url}/-/ready", timeout=5):
            return True
        return False

    def values(self, expression: str) -> list[float]:
        """What an expression gives now; NaN, of no traffic, left out."""
        found = [float(entry["value"][1]) for entry in self.get("/api/v1/query", query=expression)["result"]]
        return [value for value in found if not math.isnan(value)]


@contextmanager
def prometheus(folder: Path, target: int) -> Iterator[Prometheus]:
    """With the example's configuration, at another port and quicker."""
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(FOLDER / name) for name in config["rule_files"]]
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    command = [
        "prometheus",
        f"--config.file={file}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=warn",
    ]
    process = subprocess.Popen(command, cwd=folder, stderr=(folder / "prometheus.log").open("wb"))
    try:
        made = Prometheus(port)
        assert eventually(made.is_ready, 60), (folder / "prometheus.log").read_text()
        yield made
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def traffic(started: Running) -> Iterator[None]:
    """Calls of every kind until the block ends: personal and not, over streams, refused ones."""
    stop = threading.Event()

    def call() -> None:
        with started.stub() as stub:
            while not stop.wait(0.05):
                for user in ("1", "nobody"):
                    stub.Recommend(pb.RecommendRequest(user_id=user))
                stub.Score(pb.ScoreRequest(user_id="1", item_ids=["1", "2"]))
                stub.SimilarItems(pb.SimilarItemsRequest(item_ids=["1"]))
                stub.GetModel(pb.GetModelRequest())
                list(stub.ScoreStream(iter([score_message(["1"]), score_message(["no item"])])))
                asked = pb.RecommendStreamRequest(request=pb.RecommendRequest(user_id="2"))
                list(stub.RecommendStream(iter([asked])))
                with suppress(grpc.RpcError):
                    stub.Recommend(pb.RecommendRequest(k=-1))

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    with registry(tmp_path) as made:
        yield made


def test_reloads_refusals_and_the_registry_are_told(releases: Releases, tmp_path: Path) -> None:
    first, second = releases.add(), releases.add()
    bad = releases.add(releases.changed())
    releases.move(first)
    settings = {"tracking_uri": releases.uri, "cache_dir": str(tmp_path / "cache"), "poll_seconds": 0.05}
    with running(f"models:/{NAME}@champion", **settings) as started, started.stub() as stub:
        recommend(stub, user_id="1")
        assert read(started)("widedeep_model_cache_lookups_total", result="miss") == 1
        releases.move(second)
        assert eventually(lambda: read(started)("widedeep_reloads_total") == 1, 20)
        recommend(stub, user_id="1")
        releases.move(bad)
        assert eventually(lambda: read(started)("widedeep_versions_refused_total") == 1, 20)
        after = read(started)
        assert after("widedeep_model_info", version=second, alias="champion", state="serving") == 1
        assert after("widedeep_model_info", version=bad, state="refused") == 1
        assert after("widedeep_answers_total", version=first, alias="champion") == 1
        assert after("widedeep_answers_total", version=second) == 1
        assert after("widedeep_registry_reachable") == 1
        assert after("widedeep_registry_answer_timestamp_seconds") > 1e9
        with releases.away():
            assert eventually(lambda: read(started)("widedeep_registry_reachable") == 0, 20)
            assert read(started)("widedeep_registry_failures_total") >= 1
            assert read(started)("widedeep_registry_error") == 1
        assert eventually(lambda: read(started)("widedeep_registry_reachable") == 1, 20)
        releases.move(first)
        assert eventually(lambda: read(started)("widedeep_reloads_total") == 2, 20)
        assert read(started)("widedeep_model_cache_lookups_total", result="hit") == 1
        assert read(started)("widedeep_model_from_cache") == 0


@needs_prometheus
def test_every_panel_and_every_alert_has_data(releases: Releases, tmp_path: Path) -> None:
    first, second, bad = releases.add(), releases.add(), releases.add(releases.changed())
    releases.move(first)
    releases.move(first, "challenger")
    port = free_port()
    settings = {
        "tracking_uri": releases.uri,
        "cache_dir": str(tmp_path / "cache"),
        "poll_seconds": 0.1,
        "metrics_port": port,
        "shadow": "challenger",
        "log_requests": "off",
    }
    with (
        running(f"models:/{NAME}@champion", **settings) as started,
        traffic(started),
        prometheus(tmp_path, port) as found,
    ):
        assert eventually(lambda: found.values("widedeep_ready") == [1.0], 60)
        releases.move(second)
        assert eventually(lambda: found.values("widedeep_reloads_total") == [1.0], 60)
        releases.move(bad)
        assert eventually(lambda: found.values("widedeep_versions_refused_total") == [1.0], 60)

        missing = [expression for expression in expressions() if OF_GPUS not in expression]
        assert len(missing) > 30

        def all_have_data() -> bool:
            missing[:] = [expression for expression in missing if not found.values(expression)]
            return not missing

        assert eventually(all_have_data, 60), missing
        assert found.values('sum(rate(grpc_server_handled_total{grpc_code="OK"}[10s]))')[0] > 0
        assert eventually(lambda: found.values("increase(widedeep_versions_refused_total[1h])") > [0.0], 60)

        known = set(found.get("/api/v1/label/__name__/values"))
        used = {name for rule in ALERTS for name in names_in(rule["expr"])}
        assert used <= known | OF_PROMETHEUS

        def states() -> dict[str, str]:
            rules = [rule for group in found.get("/api/v1/rules")["groups"] for rule in group["rules"]]
            return {
                rule["name"]: rule["state"] if rule["health"] == "ok" else rule["health"] for rule in rules
            }

        assert eventually(lambda: states()["WidedeepVersionRefused"] == "firing", 60), states()
        assert set(states()) == {rule["alert"] for rule in ALERTS}
        assert set(states().values()) <= {"inactive", "pending", "firing"}, "none could not be evaluated"
        assert {
            states()[name] for name in ("WidedeepDown", "WidedeepNotReady", "WidedeepInternalErrors")
        } == {"inactive"}


@needs_prometheus
@pytest.mark.parametrize(
    "command", ["check config prometheus.yml", "check rules alerts.yml", "test rules alerts_test.yml"]
)
def test_promtool_agrees(command: str) -> None:
    done = subprocess.run(
        ["promtool", *command.split()], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
    fired = {check["alertname"] for test in tests for check in test["alert_rule_test"] if check["exp_alerts"]}
    assert fired == {rule["alert"] for rule in ALERTS}


def test_grafana_can_take_the_dashboard_in() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    cells = [
        (x, y)
        for panel in panels
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(set(cells)) == len(cells), "no panel covers another"
    assert max(x for x, _ in cells) < 24
    variables = {variable["name"] for variable in DASHBOARD["templating"]["list"]} | {"__rate_interval"}
    assert set(re.findall(r"\$\{?(\w+)", json.dumps(DASHBOARD))) <= variables
    assert yaml.safe_load((FOLDER / "dashboards.yml").read_text())["providers"]
