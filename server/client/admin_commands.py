"""What operators type. The commands return the exit status."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Callable, Sequence

from server.client.admin import AdminClient, Worker
from server.client.table import print_columns, printable


def add(names: argparse._SubParsersAction[argparse.ArgumentParser], shared: argparse.ArgumentParser) -> None:
    """shared  flags that every command has"""
    parser = names.add_parser("admin", help="steer a running server, by its --admin-port")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    made: dict[str, argparse.ArgumentParser] = {}
    for name, command, text in (
        ("status", status, "what it serves and how busy it is"),
        ("reload", reload, "look at the registry now"),
        ("pin", pin, "serve one version, and follow no alias"),
        ("unpin", unpin, "follow again"),
        ("reread", reread, "read the settings again that can change meanwhile"),
        ("drain", drain, "end as by SIGTERM"),
        ("metrics", metrics, "what is counted, in Prometheus's text format"),
    ):
        made[name] = commands.add_parser(name, parents=[shared], help=text)
        made[name].set_defaults(command=command, client=AdminClient)
    made["pin"].add_argument("version", help="its number in the registry")
    made["drain"].add_argument(
        "--grace", type=float, help="seconds that calls in flight have; else the server's --grace"
    )


def status(client: AdminClient, given: argparse.Namespace) -> int:
    return _show(client.status(), given)


def reload(client: AdminClient, given: argparse.Namespace) -> int:
    return _show(client.reload(), given)


def pin(client: AdminClient, given: argparse.Namespace) -> int:
    return _show(client.pin(given.version), given)


def unpin(client: AdminClient, given: argparse.Namespace) -> int:
    return _show(client.unpin(), given)


def reread(client: AdminClient, given: argparse.Namespace) -> int:
    names = client.reread()
    print(json.dumps(names) if given.json else f"changed: {', '.join(names) or 'nothing'}")
    return 0


def drain(client: AdminClient, given: argparse.Namespace) -> int:
    return _show(client.drain(given.grace), given)


def metrics(client: AdminClient, given: argparse.Namespace) -> int:
    text = client.metrics()
    print(json.dumps(text) if given.json else text, end="")
    return 0


def _show(workers: Sequence[Worker], given: argparse.Namespace) -> int:
    if given.json:
        print(json.dumps([dataclasses.asdict(worker) for worker in workers], indent=2))
        return 0
    columns: dict[str, Callable[[Worker], str]] = {
        "worker": lambda worker: str(worker.number),
        "pid": lambda worker: str(worker.pid),
        "state": lambda worker: worker.state.lower(),
        "up s": lambda worker: f"{worker.uptime:,.0f}",
        "calls": lambda worker: str(worker.calls),
        "queued": lambda worker: ", ".join(f"{lane.queued} {lane.name}" for lane in worker.lanes),
        "model": _model,
    }
    print_columns(
        [tuple(columns), *(tuple(map(printable, _row(columns, worker))) for worker in workers)], left=0
    )
    for worker in workers:
        notes = [f"{found.model} refused: {found.reason}" for found in worker.models if found.reason]
        for note in filter(None, (worker.problem, *notes)):
            print(f"worker {worker.number}: {printable(note)}")
    return 0


def _row(columns: dict[str, Callable[[Worker], str]], worker: Worker) -> list[str]:
    return [column(worker) for column in columns.values()]


def _model(worker: Worker) -> str:
    served = [str(found.model) for found in worker.models if found.state == "SERVING"]
    return ", ".join(served) + (f", pinned to {worker.pinned}" if worker.pinned else "")
