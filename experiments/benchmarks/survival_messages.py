"""Hostile requests: valid messages with values that nobody sends, damaged messages, and bytes that are none."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

from server.pb import recommender_pb2 as pb

IDS = (
    *("", " ", "1", "7", "42", "299", "0", "-1", "1.0", "1e9", "99999999999999999999", "NaN", "None", "true"),
    *("\x00", "1\x00", "\n", "\u202eabc", "e\u0301" * 40, "\U0001f3ac" * 64, "ß" * 256, "x" * 256, "x" * 257),
    *("x" * 5000, "'; DROP TABLE items; --", "../../etc/passwd", "{}", "%s%n", "\ufeff1", "１"),
)
FLOATS = (0.0, -0.0, 0.5, 1.0, 1.5, 3.5, 5.0, -1.0, 1e-45, 3.4e38, -3.4e38, math.inf, -math.inf, math.nan)
INTS = (0, 1, 2, 10, 100, 101, 999, 1000, 1001, 1990, 2000, -1, -1000, 2**31 - 1, -(2**31))
ENUMS = (0, 1, 2, 3, -1, 99, 2**31 - 1, -(2**31))
GENRES = ("Comedy", "comedy", "", "genre 1", "Action|Drama", "\x00")
MOST = 10_000  # entries of a list, by default
DEEP = 200  # messages within messages: more than a parser goes into
UNKNOWN_FIELDS = (
    b"\xc0\x3e\x01",  # field 1000: a number
    b"\xc2\x3e\x03abc",  # field 1000: bytes
    b"\xc3\x3e\xc4\x3e",  # field 1000: a group
    b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",  # field 1 as a number
    b"\x0a\x05ab",  # cut off
    b"\xff" * 12,  # a tag that is too long
)


class Hostile:
    """Messages without end, the same for a seed."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self._pools: dict[str, Sequence[bytes]] = {}

    def message(self, method: str, pool: int) -> bytes:
        """Bytes for one request of a method; `pool` different valid ones are damaged in new ways all the time."""
        draw = self.draw
        if method not in self._pools:
            build = BUILDERS[method]
            self._pools[method] = [build(self).SerializeToString() for _ in range(pool)]
        whole = draw.choice(self._pools[method])
        kind = draw.random()
        if kind < 0.6:
            return whole
        if kind < 0.7:
            return whole + draw.choice(UNKNOWN_FIELDS)
        if kind < 0.9:
            return self._damaged(whole)
        if kind < 0.92:
            return _nested(draw.randrange(1, DEEP))
        return draw.randbytes(draw.randrange(0, 64))

    def ids(self, most: int = 12) -> list[str]:
        """Now and then as many as a request may have, or one more."""
        draw = self.draw
        if draw.random() < 0.001:
            return [str(draw.randrange(400)) for _ in range(MOST + draw.randrange(2))]
        found = [self.id() for _ in range(draw.randrange(most))]
        return found * 2 if draw.random() < 0.1 else found

    def id(self) -> str:
        draw = self.draw
        return str(draw.randrange(1, 320)) if draw.random() < 0.9 else draw.choice(IDS)

    def value(self, usual: Sequence[Any], hostile: Sequence[Any]) -> Any:
        return self.draw.choice(usual if self.draw.random() < 0.7 else hostile)

    def history(self) -> pb.History:
        item_ids = self.ids()
        count = len(item_ids) + (self.draw.random() < 0.1)
        ratings = [self.value((1.0, 3.5, 5.0), FLOATS) for _ in range(count)]
        return pb.History(item_ids=item_ids, ratings=ratings if self.draw.random() < 0.6 else [])

    def maybe(self, share: float, make: Callable[[], Any]) -> Any:
        return make() if self.draw.random() < share else None

    def _damaged(self, whole: bytes) -> bytes:
        draw, changed = self.draw, bytearray(whole)
        for _ in range(draw.randrange(1, 6)):
            place = draw.randrange(len(changed) + 1)
            how = draw.randrange(3)
            if how == 0:
                changed[place:place] = draw.randbytes(draw.randrange(1, 5))
            elif how == 1:
                del changed[place : place + draw.randrange(1, 9)]
            elif place < len(changed):
                changed[place] ^= 1 << draw.randrange(8)
        return bytes(changed)


def _nested(levels: int) -> bytes:
    """Field 1 within field 1, and so on."""
    found = b""
    for _ in range(levels):
        length = len(found)
        size = b""
        while length >= 128:
            size += bytes([length % 128 + 128])
            length //= 128
        found = b"\x0a" + size + bytes([length]) + found
    return found


def _recommend(of: Hostile) -> pb.RecommendRequest:
    return pb.RecommendRequest(
        user_id=of.id(),
        k=of.maybe(0.5, lambda: of.value((1, 10, 20), INTS)),
        exclude_seen=of.maybe(0.3, lambda: False),
        exclude_item_ids=of.maybe(0.3, of.ids),
        candidate_item_ids=of.maybe(0.3, of.ids),
        genres=of.maybe(0.2, lambda: [of.draw.choice(GENRES)]),
        year_from=of.maybe(0.1, lambda: of.value((1990,), INTS)),
        year_to=of.maybe(0.1, lambda: of.value((2010,), INTS)),
        history=of.maybe(0.3, of.history),
        include_details=of.draw.random() < 0.3,
        request_id=of.maybe(0.3, of.id),
        include_cold_items=of.draw.random() < 0.2,
        explain=of.maybe(0.05, lambda: of.value((1, 3), INTS)),
        diversity=of.maybe(0.1, lambda: of.value((0.5, 1.0), FLOATS)),
        fallback=of.maybe(0.2, lambda: of.value((0, 1, 2), ENUMS)),
    )


def _score(of: Hostile) -> pb.ScoreRequest:
    return pb.ScoreRequest(
        user_id=of.id(),
        item_ids=of.ids(),
        history=of.maybe(0.3, of.history),
        include_details=of.draw.random() < 0.3,
        request_id=of.maybe(0.3, of.id),
        fallback=of.maybe(0.2, lambda: of.value((0, 1, 2), ENUMS)),
    )


def _similar(of: Hostile) -> pb.SimilarItemsRequest:
    return pb.SimilarItemsRequest(
        item_ids=of.ids(120) if of.draw.random() < 0.1 else of.ids(4),
        k=of.maybe(0.5, lambda: of.value((1, 10), INTS)),
        exclude_item_ids=of.maybe(0.3, of.ids),
        candidate_item_ids=of.maybe(0.3, of.ids),
        genres=of.maybe(0.2, lambda: [of.draw.choice(GENRES)]),
        year_from=of.maybe(0.1, lambda: of.value((1990,), INTS)),
        year_to=of.maybe(0.1, lambda: of.value((2010,), INTS)),
        include_details=of.draw.random() < 0.3,
        request_id=of.maybe(0.3, of.id),
        include_cold_items=of.draw.random() < 0.2,
    )


BUILDERS: dict[str, Callable[[Hostile], Any]] = {
    "Recommend": _recommend,
    "Score": _score,
    "SimilarItems": _similar,
    "GetModel": lambda _: pb.GetModelRequest(),
    "ListModels": lambda _: pb.ListModelsRequest(),
    "RecommendStream": lambda of: pb.RecommendStreamRequest(request=_recommend(of)),
    "ScoreStream": lambda of: pb.ScoreStreamRequest(request=_score(of)),
}
