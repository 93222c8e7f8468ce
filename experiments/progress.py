"""What a person sees of long work: bars on a terminal, one quiet line a step in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm import tqdm

from widedeep.training import Progress, Step


class Console:
    """Speaks to standard error, so that standard output holds results alone."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.is_terminal = sys.stderr.isatty()
        self.heads: dict[str, float] = {}  # seconds of trainings by head; other: what is between

    def say(self, text: str) -> None:
        """One line, with the seconds since the start before it."""
        tqdm.write(f"{time.monotonic() - self.started:6.1f} s  {text}", file=sys.stderr)
        sys.stderr.flush()

    def loud(self, text: str) -> None:
        """Something that must not be overlooked."""
        rule = "!" * min(100, max(map(len, text.splitlines())))
        tqdm.write(f"{rule}\n{text}\n{rule}", file=sys.stderr)
        sys.stderr.flush()

    @contextmanager
    def training(self, title: str) -> Iterator[Progress]:
        """A bar over the batches of each head, with the epoch and its metrics beside it."""
        bar: tqdm[None] | None = None
        head = ""
        last = time.monotonic()

        def spent(on: str) -> None:
            nonlocal last
            now = time.monotonic()
            self.heads[on] = self.heads.get(on, 0.0) + now - last
            last = now

        def show(step: Step) -> None:
            nonlocal bar, head
            starts = step.head == "wide" and not step.done
            spent("other" if starts else step.head)
            if not self.is_terminal:
                return
            if bar is None or step.head != head:
                if bar is not None:
                    bar.close()
                head = step.head
                bar = tqdm(
                    total=step.total * step.epochs,
                    desc=f"{title}, {head} head",
                    unit=" steps",
                    leave=False,
                    dynamic_ncols=True,
                    file=sys.stderr,
                )
            done = (max(step.epoch, 1) - 1) * step.total + step.done
            bar.update(done - bar.n)
            if step.metrics:
                figures = ", ".join(f"{name} {value:.4f}" for name, value in step.metrics.items())
                bar.set_postfix_str(f"epoch {step.epoch} of at most {step.epochs}: {figures}")

        try:
            yield show
        finally:
            spent("other")
            if bar is not None:
                bar.close()

    @contextmanager
    def counting(self, title: str, unit: str) -> Iterator[Counter]:
        """A bar over things done of a known number."""
        counter = Counter(title, unit, shown=self.is_terminal)
        try:
            yield counter
        finally:
            counter.close()


class Silent(Console):
    """Of the processes that torchrun has started the first alone speaks."""

    def __init__(self) -> None:
        super().__init__()
        self.is_terminal = False

    def say(self, text: str) -> None:
        pass

    def loud(self, text: str) -> None:
        pass


class Counter:
    """Called with (done, total), as evaluations and batch jobs do."""

    def __init__(self, title: str, unit: str, *, shown: bool) -> None:
        self._bar = tqdm(
            desc=title,
            unit=f" {unit}",
            leave=False,
            dynamic_ncols=True,
            file=sys.stderr,
            disable=not shown,
        )

    def __call__(self, done: int, total: int) -> None:
        self._bar.total = total
        self._bar.update(done - self._bar.n)

    def close(self) -> None:
        self._bar.close()
