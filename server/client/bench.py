"""The load tool: what a server of one's own takes, and how fast it is.

python -m server.client bench --target 127.0.0.1:50051 --concurrency 64
python -m server.client bench --rate 500 --duration 30 --mix recommend=1,score=4,score_stream=4 --users ids.txt
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from server.client.aio import AsyncClient
from server.client.connection import Client
from server.client.latencies import Latencies
from server.client.load import Load, Record, Tally
from server.client.senders import Population, senders
from server.client.table import print_columns
from server.client.values import ClientError, Model

PERCENTILES = (50, 90, 99, 99.9)
BAR = 50  # characters


def bench(client: Client, given: argparse.Namespace) -> int:
    """Returns  exit status: 1 if nothing was answered

    Raises  ClientError: there is no server, or no ids to ask about
    """
    population = Population(
        _user_ids(client, given.users), _item_ids(client, given.item_ids), given.k, given.items
    )
    if not given.json and sys.stderr.isatty():
        print(f"{given.warm_up + given.duration:g} s …; Ctrl-C ends it earlier", file=sys.stderr)
    record = asyncio.run(_load(given, population))
    if given.json:
        print(json.dumps(_as_json(record, given), indent=2))
    else:
        _print(record, given)
    return 0 if record.answered else 1


async def _load(given: argparse.Namespace, population: Population) -> Record:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGINT, stop.set)
    try:
        async with AsyncClient(**given.connection, attempts=1) as connection:  # a retry would hide an error
            load = Load(
                senders=senders(connection, list(given.mix), population),
                mix=given.mix,
                concurrency=given.concurrency,
                rate=given.rate,
                warm_up=given.warm_up,
                duration=given.duration,
                timeout=given.timeout,
            )
            return await load.run(stop)
    finally:
        loop.remove_signal_handler(signal.SIGINT)


def _user_ids(client: Client, given: str | None) -> list[str]:
    if given is not None and not given.isdigit():
        return _lines("--users", given)
    count = client.info().user_count if given is None else int(given)
    return [str(number) for number in range(1, max(count, 1) + 1)]


def _item_ids(client: Client, given: str | None) -> list[str]:
    if given is not None and not Path(given).exists():
        found = [part.strip() for part in given.split(",") if part.strip()]
    elif given is not None:
        found = _lines("--item-ids", given)
    else:
        found = [item.item_id for item in client.recommend(k=_most(client), details=False).items]
    if not found:
        raise ClientError(
            "INVALID_ARGUMENT", "there are no item ids to ask about; give --item-ids.", "item_ids"
        )
    return found


def _most(client: Client) -> int:
    """The longest ranking that the server gives; its operator may have set less than the contract's 1000."""
    for k in (1000, 100):
        try:
            client.recommend(k=k, details=False)
        except ClientError as error:
            if error.field != "k":
                raise
        else:
            return k
    return 10


def _lines(flag: str, path: str) -> list[str]:
    try:
        found = [line.strip() for line in Path(path).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ClientError("INVALID_ARGUMENT", f"{flag}: cannot read {path}: {error}.") from error
    if not found:
        raise ClientError("INVALID_ARGUMENT", f"{flag}: {path} has no ids.")
    return found


def _how(given: argparse.Namespace) -> str:
    return f"{given.concurrency} at a time" if given.rate is None else f"{given.rate:g} requests a second"


def _total(record: Record) -> Tally:
    total = Tally()
    for tally in record.tallies.values():
        total.latencies.update(tally.latencies)
        total.errors.update(tally.errors)
        total.not_personal += tally.not_personal
    return total


def _rows(record: Record) -> dict[str, Tally]:
    return {**dict(sorted(record.tallies.items())), "all": _total(record)}


def _print(record: Record, given: argparse.Namespace) -> None:
    print(f"{given.target}, {_how(given)}, {record.seconds:.1f} s after {given.warm_up:g} s to warm up\n")
    header = ("", "answered", "per s", *(f"p{percent:g}" for percent in PERCENTILES), "max ms", "errors")
    rows = []
    for name, tally in _rows(record).items():
        found = tally.latencies
        moments = [found.percentile(percent) for percent in PERCENTILES] + [found.max]
        rows.append(
            (
                name,
                f"{found.count:,}",
                f"{found.count / record.lasted:,.1f}" if found.count else "–",
                *(f"{1000 * moment:,.2f}" if found.count else "–" for moment in moments),
                _counts(tally.errors),
            )
        )
    print_columns([header, *rows], left=1)
    total = _total(record)
    _print_histogram(total.latencies)
    print()
    for version, count in record.models.most_common():
        print(f"{count:,} by {Model(*version)}")
    if total.not_personal:
        print(f"{total.not_personal:,} not personal; --users names users whom the model knows")
    if record.seconds and (share := record.cpu / record.seconds) > 0:
        busy = ": it may be this process, not the server, that is the limit" if share > 0.8 else ""
        print(f"This process took {share:.2f} of a CPU core{busy}.")


def _counts(errors: Counter[str]) -> str:
    return ", ".join(f"{code} {count:,}" for code, count in errors.most_common()) or "none"


def _print_histogram(latencies: Latencies) -> None:
    rows = latencies.histogram()
    if not rows:
        return
    print()
    most = max(count for _, _, count in rows)
    print_columns(
        [
            (f"{1000 * low:,.2f} to {1000 * high:,.2f} ms", f"{count:,}", "#" * -(-BAR * count // most))
            for low, high, count in rows
        ],
        left=0,
    )


def _as_json(record: Record, given: argparse.Namespace) -> dict[str, Any]:
    return {
        "target": given.target,
        "concurrency": given.concurrency if given.rate is None else None,
        "rate": given.rate,
        "warm_up": given.warm_up,
        "seconds": record.seconds,
        "seconds_until_last_answer": record.lasted,
        "cpu_seconds": record.cpu,
        "rpcs": {name: _tally_as_json(tally, record.lasted) for name, tally in _rows(record).items()},
        "histogram": [
            {"from_ms": 1000 * low, "to_ms": 1000 * high, "count": count}
            for low, high, count in _total(record).latencies.histogram()
        ],
        "models": [
            {"name": name, "version": version, "alias": alias, "answered": count}
            for (name, version, alias), count in record.models.most_common()
        ],
    }


def _tally_as_json(tally: Tally, seconds: float) -> dict[str, Any]:
    found = tally.latencies
    return {
        "answered": found.count,
        "per_second": found.count / seconds if found.count else None,
        "not_personal": tally.not_personal,
        **{
            f"p{percent:g}_ms": 1000 * found.percentile(percent) if found.count else None
            for percent in PERCENTILES
        },
        "max_ms": 1000 * found.max if found.count else None,
        "errors": dict(tally.errors.most_common()),
    }
