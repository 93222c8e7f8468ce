"""Two servers as one: clients that go round them, and nginx before them; one is killed under load."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from ports import free_port
from processes import ROOT, Process, started
from serving import eventually

from server.client import Client, ClientError, Recommend

pytest_plugins = ["serving_fixtures"]
NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
CONFIG = ROOT / "examples" / "deploy" / "nginx.conf"
LONG = 240.0  # seconds; a process starts in a few
THREADS = 4  # of each load


@dataclass(frozen=True)
class Replicas:
    """Two servers of different bundles, so that an answer's version says whose it is."""

    processes: tuple[Process, Process]
    addresses: tuple[str, str]
    versions: tuple[str, str]

    @property
    def target(self) -> str:
        """gRPC's name for both."""
        return f"ipv4:{','.join(self.addresses)}"


@pytest.fixture(scope="module")
def replicas(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Replicas]:
    other = tmp_path_factory.mktemp("other") / "model.pth"
    content = torch.load(bundle, weights_only=True)
    torch.save({**content, "about": {**content["about"], "dataset": "other"}}, other)
    with ExitStack() as stack:
        processes = [
            stack.enter_context(started("--model", str(path), "--port", "0", "--device", "cpu"))
            for path in (bundle, other)
        ]
        first, second = processes
        served = [process.wait_for(r"serving on (127\S+)", LONG).group(1) for process in processes]
        versions = [process.wait_for(r"model\.pth version (\w+)").group(1) for process in processes]
        yield Replicas((first, second), (served[0], served[1]), (versions[0], versions[1]))


@pytest.fixture(scope="module")
def proxy(replicas: Replicas, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """nginx's address, by the example's configuration with ports and folders of the test."""
    if NGINX is None:
        pytest.skip("needs nginx (Debian and Ubuntu: apt-get install nginx-light)")
    folder, address = tmp_path_factory.mktemp("nginx"), f"127.0.0.1:{free_port()}"
    text = CONFIG.read_text()
    for old, new in (
        ("127.0.0.1:50051", replicas.addresses[0]),
        ("127.0.0.1:50061", replicas.addresses[1]),
        ("127.0.0.1:50050", address),
        ("/run/widedeep-nginx.pid", str(folder / "pid")),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder / kind};\n" for kind in kinds)  # the system's own are root's
    (folder / "nginx.conf").write_text(text.replace("http {\n", f"http {{\n{places}"))
    process = subprocess.Popen(
        [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")], stderr=subprocess.PIPE, text=True
    )
    try:
        with Client(address, timeout=5) as client:
            assert eventually(lambda: process.poll() is not None or answers(client), LONG)
        yield address
    finally:
        process.terminate()
        _, log = process.communicate(timeout=30)
    assert "[emerg]" not in log


def answers(client: Client) -> bool:
    try:
        return client.health() == "SERVING"
    except ClientError:
        return False


def versions_of(client: Client, count: int) -> Counter[str]:
    return Counter(client.recommend("1", k=3).model.version for _ in range(count))


def test_clients_go_round_the_servers(replicas: Replicas) -> None:
    with Client(replicas.target, timeout=LONG) as client:
        assert eventually(lambda: len(versions_of(client, 4)) == 2, LONG), "it is connected to both"
        assert versions_of(client, 20) == dict.fromkeys(replicas.versions, 10)


def test_nginx_goes_round_the_servers(replicas: Replicas, proxy: str) -> None:
    with Client(proxy, timeout=LONG) as client:
        found = versions_of(client, 20)
        assert found.keys() == set(replicas.versions)
        assert min(found.values()) >= 5, "its processes count for themselves"
        replies = list(client.recommend_stream(Recommend(str(user)) for user in range(1, 301)))
        assert all(reply.answer for reply in replies)
        assert len(replies) == 300
        with pytest.raises(ClientError) as caught:
            client.recommend("1", k=0)
        assert (caught.value.code, caught.value.field) == ("INVALID_ARGUMENT", "k"), "details come through"


@dataclass
class Load:
    """Threads that ask one question after the other, and what became of them."""

    client: Client
    answered: Counter[str] = field(default_factory=Counter)
    errors: list[tuple[str, float]] = field(default_factory=list)  # code, and when the call began
    stop: threading.Event = field(default_factory=threading.Event)

    @property
    def count(self) -> int:
        return sum(self.answered.values())

    def work(self) -> None:
        while not self.stop.is_set():
            began = time.monotonic()
            try:
                version = self.client.recommend("1", k=3).model.version
            except ClientError as error:
                self.errors.append((error.code, began))
            else:
                self.answered[version] += 1


@contextmanager
def load(target: str, attempts: int) -> Iterator[Load]:
    with Client(target, timeout=LONG, attempts=attempts) as client:
        made = Load(client)
        threads = [threading.Thread(target=made.work) for _ in range(THREADS)]
        for thread in threads:
            thread.start()
        try:
            yield made
        finally:
            made.stop.set()
            for thread in threads:
                thread.join(LONG)


def stands_still(loads: list[Load]) -> bool:
    before = [made.count for made in loads]
    time.sleep(1.0)
    return before == [made.count for made in loads]


def test_one_is_killed_under_load(replicas: Replicas, proxy: str) -> None:
    """Stopped first, until each thread waits for it: so it is known what is in flight when it dies."""
    with (
        load(replicas.target, attempts=4) as retrying,
        load(replicas.target, attempts=1) as plain,
        load(proxy, attempts=4) as proxied,
        load(proxy, attempts=1) as proxied_plain,
    ):
        loads = [retrying, plain, proxied, proxied_plain]
        assert eventually(lambda: all(len(made.answered) == 2 for made in loads), LONG), "both answer"
        dead, alive = replicas.versions
        victim = replicas.processes[0].popen
        victim.send_signal(signal.SIGSTOP)
        assert eventually(lambda: stands_still(loads), LONG)
        before = [Counter(made.answered) for made in loads]
        killed = time.monotonic()
        victim.kill()
        for made, past in zip(loads, before, strict=True):
            assert eventually(lambda made=made, past=past: made.answered[alive] >= past[alive] + 20, LONG)
            assert made.answered[dead] == past[dead], "nothing comes from it any more"
    for made in (plain, proxied_plain):
        assert {code for code, _ in made.errors} == {"UNAVAILABLE"}
        in_flight = [began for _, began in made.errors if began < killed]
        assert len(in_flight) == THREADS, "what was in flight"
        assert len(made.errors) <= 2 * THREADS, (
            "and what a thread sent before it knew of the connection's end"
        )
    for made in (retrying, proxied):
        assert made.errors == [], "the client has asked again, and the other one has answered"


def test_without_any_server_nginx_speaks_grpc(replicas: Replicas, proxy: str) -> None:
    for process in replicas.processes:
        process.popen.kill()
    with Client(proxy, timeout=LONG, attempts=1) as client, pytest.raises(ClientError) as caught:
        client.recommend("1")
    assert caught.value.code == "UNAVAILABLE"
