"""API tokens: who may call, what for, until when.

python -m server.tokens new --name shop --scope serve --expires 90d --file tokens.txt
python -m server.tokens list --file tokens.txt
python -m server --tokens-file tokens.txt

A line of the file is a token. Several may have the same name, which is how one is replaced while clients run: add
the new one, give it to the clients, delete the old one's line. The server looks at the file once a second at most.

The file has SHA-256 digests, not tokens. A slow hash, as for passwords, would add nothing: a token is 256 random
bits, which nobody can guess. It is looked up by its digest, so how long that takes tells nothing about any token.
"""

from __future__ import annotations

import argparse
import hashlib
import logging
import math
import os
import re
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from server import files
from widedeep.errors import ConfigError

logger = logging.getLogger(__name__)

SCOPES = ("serve", "admin")
PREFIX = "wd_"  # by which a token that was left somewhere can be found
LOOK_EVERY = 1.0  # seconds
NAME = re.compile(r"[A-Za-z0-9._-]{1,64}")
UNITS = {"d": "days", "h": "hours", "m": "minutes"}
HEAD = "# name, scopes, SHA-256 of the token, and what else holds: expires=TIME rate=CALLS_A_SECOND\n"


@dataclass(frozen=True)
class Token:
    """
    digest   SHA-256 of the token
    expires  seconds since 1970; infinity: never
    rate     calls and messages a second that it is good for; None: as many as anybody
    """

    name: str
    scopes: frozenset[str]
    digest: bytes
    expires: float = math.inf
    rate: float | None = None


class TokenFile:
    """The tokens of a file as it was when it was last good."""

    def __init__(self, path: str | Path) -> None:
        """Raises  ConfigError: it cannot be read, or it holds no tokens"""
        self._path = Path(path).expanduser()
        self._stamp = files.stamp(self._path)
        self._tokens = read(self._path)
        self._look_at = time.monotonic() + LOOK_EVERY
        files.warn_of_readers(self._path, "the file of tokens")

    def get(self, digest: bytes) -> Token | None:
        """The token with this digest, whether it has expired or not."""
        if time.monotonic() >= self._look_at:
            self._look()
        return self._tokens.get(digest)

    def _look(self) -> None:
        self._look_at = time.monotonic() + LOOK_EVERY
        stamp = files.stamp(self._path)
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._tokens = read(self._path)
        except ConfigError as error:
            logger.error("the tokens' file has changed, and the old tokens stay: %s", error)
        else:
            logger.info("%d tokens were read from %s", len(self._tokens), self._path)


def digest_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def read(path: Path) -> dict[bytes, Token]:
    """By digest.

    Raises  ConfigError: the file cannot be read, a line is not a token, or there is none
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"The tokens' file {path} cannot be read: {error}. Make one with: python -m server.tokens new "
            f"--name NAME --scope serve --file {path}"
        ) from error
    tokens = {}
    for number, line in enumerate(lines, 1):
        if line.strip() and not line.lstrip().startswith("#"):
            try:
                token = parse(line)
            except ValueError as error:
                raise ConfigError(f"Line {number} of the tokens' file {path}: {error}") from error
            tokens[token.digest] = token
    if not tokens:
        raise ConfigError(
            f"The tokens' file {path} holds no token, so nobody could call. Make one with: "
            f"python -m server.tokens new --name NAME --scope serve --file {path}"
        )
    return tokens


def parse(line: str) -> Token:
    """Raises  ValueError: says what is wrong; the digest is not repeated, it could be a token by mistake"""
    words = line.split()
    if len(words) < 3:
        raise ValueError("wants a name, scopes and a SHA-256 digest, with spaces between.")
    name, scopes, digest, *others = words
    if not NAME.fullmatch(name):
        raise ValueError(
            f"a name has 1 to 64 letters, digits, dots, dashes and underscores; got {name[:80]!r}."
        )
    if unknown := set(scopes.split(",")) - set(SCOPES):
        raise ValueError(f"scopes are {' and '.join(SCOPES)}, with commas between; got {sorted(unknown)}.")
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError("the third word is not a SHA-256 digest of 64 hexadecimal digits.")
    expires, rate = math.inf, None
    for word in others:
        key, _, value = word.partition("=")
        if key == "expires":
            expires = moment(value).timestamp()
        elif key == "rate":
            rate = float(value)
            if not 0 < rate <= 10**6:
                raise ValueError(f"a rate is above 0 and at most a million; got {value}.")
        else:
            raise ValueError(f"knows expires=TIME and rate=CALLS_A_SECOND; got {key[:80]!r}.")
    return Token(name, frozenset(scopes.split(",")), bytes.fromhex(digest), expires, rate)


def moment(text: str) -> datetime:
    """`90d`, `12h` or `30m` from now, or a date or time as in ISO 8601, UTC unless it says otherwise.

    Raises  ValueError
    """
    if found := re.fullmatch(r"(\d{1,5})([dhm])", text):
        return datetime.now(UTC) + timedelta(**{UNITS[found[2]]: int(found[1])})
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise ValueError(
            f"a time is like 90d, 12h, 2027-01-31 or 2027-01-31T12:00Z; got {text!r}."
        ) from error
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def new(path: Path, name: str, scopes: str, expires: str = "", rate: float | None = None) -> str:
    """Add a token to the file, and give it. Nothing keeps it but the caller.

    Raises  ConfigError: the file cannot be written, is broken, or a value is wrong
    """
    token = PREFIX + secrets.token_urlsafe(32)
    try:
        words = [name, scopes, digest_of(token).hex()]
        if expires:
            words.append(f"expires={moment(expires).astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}")
        if rate is not None:
            words.append(f"rate={rate:g}")
        line = "  ".join(words) + "\n"
        parse(line)
    except ValueError as error:
        raise ConfigError(f"The token cannot be made: {error}") from error
    if path.exists():
        read(path)
    try:
        # A line is added in one write: who reads sees all of it or nothing, and the file's owner and mode stay.
        with os.fdopen(
            os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "rb+", buffering=0
        ) as file:
            before = file.read()
            start = HEAD if not before else "" if before.endswith(b"\n") else "\n"
            file.write((start + line).encode())
    except OSError as error:
        raise ConfigError(f"The tokens' file {path} cannot be written: {error.strerror}.") from error
    return token


def table(path: Path) -> str:
    """What a person may know of the tokens. Raises  ConfigError"""
    now = time.time()
    rows = [("NAME", "SCOPES", "SHA-256", "EXPIRES", "RATE")]
    for token in read(path).values():
        ends = "never" if token.expires == math.inf else f"{datetime.fromtimestamp(token.expires, UTC):%F %R}"
        rows.append(
            (
                token.name,
                ",".join(sorted(token.scopes)),
                token.digest.hex()[:12],
                ends + (" (expired)" if token.expires <= now else ""),
                "" if token.rate is None else f"{token.rate:g}",
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns  exit status: 2 for a file or a value that cannot be used"""
    parser = argparse.ArgumentParser(prog="python -m server.tokens", description="The tokens of a server.")
    commands = parser.add_subparsers(dest="command", required=True)
    made = commands.add_parser("new", help="add a token to the file, and print it, once")
    made.add_argument("--name", required=True, help="who it is for; several tokens may have the same")
    made.add_argument("--scope", required=True, help="serve, admin or serve,admin")
    made.add_argument("--expires", default="", help="90d, 12h, or a date; empty: never")
    made.add_argument(
        "--rate", type=float, help="calls and messages a second; default: the server's --rate-limit"
    )
    listed = commands.add_parser("list", help="show the tokens of a file, without what they are")
    for command in (made, listed):
        command.add_argument("--file", required=True, type=Path)
    given = parser.parse_args(arguments)
    try:
        if given.command == "new":
            print(new(given.file, given.name, given.scope, given.expires, given.rate))
        else:
            print(table(given.file))
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
