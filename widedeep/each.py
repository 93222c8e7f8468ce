"""Answer many queries at once, each of those that cannot be answered with its own error."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from widedeep.errors import RequestError

Q = TypeVar("Q")
A = TypeVar("A")
R = TypeVar("R")


def answer_each(
    queries: Sequence[Q], ask: Callable[[Q], A], answer: Callable[[list[A]], list[R]]
) -> list[R | RequestError]:
    """In the order of the queries.

    ask     looks at one query and raises RequestError if it cannot be answered
    answer  answers all that can be
    """
    errors: dict[int, RequestError] = {}
    asked = []
    for place, query in enumerate(queries):
        try:
            asked.append(ask(query))
        except RequestError as error:
            errors[place] = error.with_traceback(None)  # whose frames would hold the model
    answers = iter(answer(asked) if asked else [])
    return [errors[place] if place in errors else next(answers) for place in range(len(queries))]


def or_raise(answers: Iterable[R | RequestError]) -> list[R]:
    """Raises  RequestError: the first of the answers that is one"""
    good = []
    for answer in answers:
        if isinstance(answer, RequestError):
            raise answer
        good.append(answer)
    return good
