"""The operators' port of one process, asked by its client."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from processes import free_port
from registries import NAME, Releases, registry
from serving import Feed, Running, eventually, recommend, running

from server.admin import Admin
from server.admin_port import Listener
from server.app import Server
from server.calls import Call
from server.client import Client, ClientError
from server.client.__main__ import main
from server.client.admin import AdminClient, Worker
from server.pb import admin_pb2 as pb
from server.pb import admin_pb2_grpc as pb_grpc
from server.settings import ServerSettings
from server.status import UnavailableError
from widedeep.errors import ConfigError

pytest_plugins = ["serving_fixtures"]
MODEL = f"models:/{NAME}@champion"
NEVER = 3600.0  # seconds between looks: what is found is found because it was asked for


@contextmanager
def administered(model: Path | str, **settings: Any) -> Iterator[tuple[Running, AdminClient]]:
    port = free_port()
    with (
        running(model, admin_port=port, **settings) as started,
        AdminClient(f"127.0.0.1:{port}", timeout=60) as admin,
    ):
        yield started, admin


@pytest.fixture
def releases(tmp_path: Path) -> Iterator[Releases]:
    """champion is version 1 of two good ones; the third is damaged."""
    with registry(tmp_path) as made:
        made.add()
        made.add()
        made.add(made.changed())
        made.move("1")
        yield made


def of(releases: Releases, **settings: Any) -> Any:
    options = {"tracking_uri": releases.uri, "cache_dir": str(releases.folder / "cache")}
    return administered(MODEL, **{"poll_seconds": NEVER, **options, **settings})


def served(workers: tuple[Worker, ...]) -> tuple[str, str, str]:
    """Version, alias and pin of the only worker."""
    (worker,) = workers
    return worker.models[0].model.version, worker.models[0].model.alias, worker.pinned


def refused(code: str, text: str) -> Any:
    return pytest.raises(ClientError, match=f"(?s){code}: .*{text}")


def test_a_pin_holds_against_the_alias_until_it_is_taken_away(releases: Releases) -> None:
    with of(releases, poll_seconds=0.05) as (started, admin), Client(started.target) as client:
        assert served(admin.status()) == ("1", "champion", "")
        assert served(admin.pin("2")) == ("2", "", "2")
        answer = client.recommend("1", k=3)
        assert str(answer.model) == f"{NAME} version 2"
        registry_status = client.info().registry
        assert registry_status is not None
        assert not registry_status.following
        looks = started.server.store._follower._answered_at
        assert eventually(lambda: started.server.store._follower._answered_at != looks), "it looks on"
        assert served(admin.status()) == ("2", "", "2"), "the alias is on version 1"
        assert served(admin.pin("1")) == ("1", "", "1")
        releases.move("2")
        assert served(admin.status()) == ("1", "", "1")
        assert served(admin.unpin()) == ("2", "champion", "")
        assert client.recommend("1", k=3).model.alias == "champion"


def test_what_is_served_already_is_pinned_without_loading_it(releases: Releases) -> None:
    with of(releases) as (started, admin):
        before = started.server.store.current
        assert served(admin.pin("1")) == ("1", "", "1")
        assert served(admin.unpin()) == ("1", "champion", "")
        assert started.server.store.current is before


def test_what_cannot_be_pinned_is_refused_and_all_is_as_before(releases: Releases) -> None:
    with of(releases) as (started, admin), started.stub() as stub:
        with refused("FAILED_PRECONDITION", "answers otherwise"):
            admin.pin("3")
        assert served(admin.status()) == ("1", "champion", "")
        (refusal,) = (found for found in admin.status()[0].models if found.state == "REFUSED")
        assert (refusal.model.version, bool(refusal.reason)) == ("3", True)
        with refused("FAILED_PRECONDITION", "films/99 is not in the registry"):
            admin.pin("99")
        for word in ("", "0", "07", "two", "²"):
            with refused("INVALID_ARGUMENT", "must be a version's number"):
                admin.pin(word)
        assert served(admin.status()) == ("1", "champion", "")
        admin.pin("2")
        with refused("FAILED_PRECONDITION", "answers otherwise"):
            admin.pin("3")
        assert served(admin.status()) == ("2", "", "2"), "the pin before holds"
        assert recommend(stub, user_id="1").model.version == "2"


def test_a_reload_does_not_wait_for_the_next_look(releases: Releases) -> None:
    with of(releases) as (_, admin):
        releases.move("2")
        assert served(admin.status())[0] == "1"
        assert served(admin.reload()) == ("2", "champion", "")
        releases.move("3")
        for _ in range(2):  # also what was refused a moment ago
            with refused("FAILED_PRECONDITION", "answers otherwise"):
                admin.reload()
        assert served(admin.status())[0] == "2"
        with releases.away(), refused("UNAVAILABLE", "MLflow store"):
            admin.reload()
        releases.move("1")
        assert served(admin.reload())[0] == "1"


def test_unpinned_from_a_good_version_to_a_bad_one(releases: Releases) -> None:
    """What was pinned is served on, and the alias is followed as soon as it is good."""
    with of(releases) as (_, admin):
        admin.pin("2")
        releases.move("3")
        (worker,) = admin.unpin()
        assert (worker.models[0].model.version, worker.pinned) == ("2", "")
        assert [found.model.version for found in worker.models if found.state == "REFUSED"] == ["3"]
        releases.move("1")
        assert served(admin.reload()) == ("1", "champion", "")


def test_a_file_has_no_versions(bundle: Path) -> None:
    with administered(bundle) as (_, admin):
        for ask in (lambda: admin.pin("1"), admin.unpin, admin.reload):
            with refused("FAILED_PRECONDITION", "is a file, which has no versions"):
                ask()


def test_the_status_counts_what_is_in_flight(bundle: Path) -> None:
    with administered(bundle) as (started, admin), started.stub() as stub:
        (idle,) = admin.status()
        assert (idle.number, idle.state, idle.calls, idle.streams) == (0, "SERVING", 0, 0)
        assert [(lane.name, lane.queued) for lane in idle.lanes] == [("ranking", 0), ("scoring", 0)]
        assert all(lane.limit > 0 for lane in idle.lanes)
        feed = Feed()
        stream = stub.RecommendStream(iter(feed))
        assert eventually(lambda: admin.status()[0].streams == 1)
        feed.close()
        assert list(stream) == []
        assert eventually(lambda: admin.status()[0].calls == 0)


def test_a_drain_by_an_operator(bundle: Path) -> None:
    with administered(bundle, grace=50.0) as (started, admin):
        for grace in (-1.0, float("nan"), 1e9):
            with refused("INVALID_ARGUMENT", "grace_seconds"):
                admin.drain(grace)
        assert not started.server.ending.is_set()
        admin.drain(0.25)
        assert started.server.ending.is_set()
        assert started.server._grace == 0.25
        assert admin.status()[0].state == "DRAINING", "it answers until the end"


def test_each_port_has_its_own_service(bundle: Path) -> None:
    with administered(bundle) as (started, admin):
        with grpc.insecure_channel(started.target) as channel, pytest.raises(grpc.RpcError) as caught:
            pb_grpc.AdminStub(channel).GetStatus(pb.GetStatusRequest())
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
        with refused("UNIMPLEMENTED", ""):
            admin.recommend("1")


def test_the_gate_is_asked(bundle: Path, tmp_path: Path) -> None:
    class Closed:
        def admit(self, call: Call) -> None:
            raise UnavailableError(f"{call.service}/{call.method} is closed")

    async def life() -> None:
        address = f"unix:{tmp_path / 'admin'}"
        server = Server(ServerSettings(model=str(bundle), device="cpu"))
        listener = Listener(Admin(server), address, Closed())
        await listener.start()
        async with grpc.aio.insecure_channel(address) as channel:
            with pytest.raises(grpc.aio.AioRpcError, match="Admin/Drain is closed") as caught:
                await pb_grpc.AdminStub(channel).Drain(pb.DrainRequest())
        await listener.stop()
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert not server.ending.is_set()

    asyncio.run(life())


def test_addresses_that_cannot_be_had(bundle: Path) -> None:
    with pytest.raises(ConfigError, match="--admin-host must be of this machine alone"):
        ServerSettings(admin_port=1, admin_host="0.0.0.0")
    with (
        administered(bundle) as (_, admin),
        pytest.raises(ConfigError, match="Cannot listen for operators"),
        running(bundle, admin_port=int(admin.target.rpartition(":")[2])),
    ):
        pass


def test_what_operators_type(releases: Releases, capsys: pytest.CaptureFixture[str]) -> None:
    with of(releases) as (_, admin):

        def say(*words: str) -> tuple[int, str, str]:
            status = main(["admin", *words, "--target", admin.target])
            return status, *capsys.readouterr()

        status, out, _ = say("pin", "2")
        assert status == 0
        header, line = out.splitlines()
        assert header.split() == ["worker", "pid", "state", "up", "s", "calls", "queued", "model"]
        assert line.endswith(f"0  0 ranking, 0 scoring  {NAME} version 2, pinned to 2")
        assert f"{NAME} version 1 (champion)" in say("unpin")[1]
        status, _, error = say("pin", "3")
        assert (status, error.startswith("error: FAILED_PRECONDITION")) == (1, True)
        assert "worker 0: films version 3 refused: " in say("status")[1]
        assert '"state": "SERVING"' in say("status", "--json")[1]
        assert say("reload")[0] == 0
        assert say("reread")[0] == 1
        assert say("metrics")[:2] == (0, "")
        assert say("drain", "--grace", "1")[0] == 0
        assert "draining" in say("status")[1]
