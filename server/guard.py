"""Who may call, and how often: tokens and rates in front of the methods.

Health checks ask for no token: who balances load or restarts containers has none. Reflection is closed where tokens
are asked for, which `app` sees to. A token that is taken from the file is refused at the next message of an open
stream, too.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from server.calls import Call
from server.entrance import Metadata
from server.rates import Rates
from server.settings import ServerSettings
from server.status import ScopeError, TokenExpiredError, TokenMissingError, TokenUnknownError
from server.tokens import Token, TokenFile, digest_of

SERVE = "widedeep.v1.Recommender"  # the service of the scope `serve`; every other one is `admin`


@dataclass(frozen=True, slots=True)
class Admission:
    """What the guard notes of a call.

    digest  of its token; None where none is asked for
    caller  whose rate it counts against: a token's name, else a host
    """

    digest: bytes | None
    caller: str


class Guard:
    """A `calls.Gate`."""

    def __init__(self, settings: ServerSettings) -> None:
        """Raises  ConfigError: the tokens' file cannot be used"""
        self._tokens = TokenFile(settings.tokens_file) if settings.tokens_file else None
        self._rates = Rates()
        self._rate = settings.rate_limit
        self._burst = settings.rate_burst

    @classmethod
    def of(cls, settings: ServerSettings) -> Guard | None:
        """None where there is nothing to guard.  Raises  ConfigError"""
        return cls(settings) if settings.tokens_file or settings.rate_limit else None

    def knows(self, metadata: Metadata) -> bool:
        if self._tokens is None:
            return True
        token = _bearer(metadata)
        return bool(token) and self._tokens.get(digest_of(token)) is not None

    def admit(self, call: Call) -> None:
        """Raises  TokenMissingError, TokenUnknownError, TokenExpiredError, ScopeError, RateLimitError"""
        token = None
        if self._tokens is None:
            call.admission = Admission(None, host_of(call.context.peer()))
        else:
            sent = _bearer(call.context.invocation_metadata() or ())
            if not sent:
                raise TokenMissingError(
                    "This server wants a token with every call, as metadata `authorization: Bearer TOKEN` "
                    "(token= or --token of the client)."
                )
            digest = digest_of(sent)
            token = self._good(self._tokens, call, digest)
            call.caller = token.name
            call.admission = Admission(digest, token.name)
        self._count(call, token)

    def admit_message(self, call: Call) -> None:
        """Raises  what `admit` does"""
        digest = call.admission.digest
        self._count(call, self._good(self._tokens, call, digest) if self._tokens else None)

    def _count(self, call: Call, token: Token | None) -> None:
        rate = self._rate if token is None or token.rate is None else token.rate
        if rate:
            self._rates.take(call.admission.caller, rate, self._burst or max(1, math.ceil(rate)))

    def _good(self, tokens: TokenFile, call: Call, digest: bytes) -> Token:
        token = tokens.get(digest)
        if token is None:
            raise TokenUnknownError("This token is not known here, or not any more. Ask who runs the server.")
        if token.expires <= time.time():
            raise TokenExpiredError(
                f"This token of {token.name} has expired. Ask who runs the server for another."
            )
        scope = "serve" if call.service == SERVE else "admin"
        if scope not in token.scopes:
            raise ScopeError(
                f"{call.method} wants a token with the scope {scope}; this one of {token.name} has "
                f"{', '.join(sorted(token.scopes))}."
            )
        return token


def host_of(peer: str) -> str:
    """ipv4:10.0.0.1:5000 without its port; what else a peer is called, as it is."""
    return peer.rpartition(":")[0] if peer.startswith(("ipv4:", "ipv6:")) else peer


def _bearer(metadata: Metadata) -> str:
    """The token of a call; empty where there is none."""
    for key, value in metadata:
        if key == "authorization":
            scheme, _, token = str(value).partition(" ")
            return token.strip() if scheme.lower() == "bearer" else ""
    return ""
