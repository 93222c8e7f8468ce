"""What happens to a server: does it survive, and what does it cost the requests?

    python -m experiments.benchmarks.survival [--quick] --out DIR [--only cancel]

cancel     calls cancelled at random moments, streams broken midway
terminate  SIGTERM in the middle of streams
kill       SIGKILL, and a restart from the cache with the registry away
disk       no room for a model, nor in the cache
clock      the clock jumps by hours (needs faketime)
tracking   the tracking server answers slowly, wrongly, and not at all

`survival_fuzz` sends a million hostile requests, `survival_soak` half an hour of load.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from experiments.benchmarks import form, survival_cancel, survival_stops, survival_world
from experiments.benchmarks.survival_load import Tell

ABOUT = "Do to a server what happens to servers; count what is lost."
RUNS: dict[str, Callable[[form.Report, bool, Path, Tell], None]] = {
    "cancel": survival_cancel.run,
    "terminate": survival_stops.terminated,
    "kill": survival_stops.killed,
    "disk": survival_world.disk,
    "clock": survival_world.clock,
    "tracking": survival_world.tracking,
}


def run(names: list[str], quick: bool, tell: Tell) -> form.Report:
    """Raises  OpponentFailed: a server did not survive"""
    report = form.Report("Survival", f"Runs: {', '.join(names)}. A model of 200 items and 300 users.")
    for name in names:
        tell(name)
        with tempfile.TemporaryDirectory() as folder:
            RUNS[name](report, quick, Path(folder), tell)
    return report


def main(arguments: list[str] | None = None) -> int:
    flags = form.parser("survival", ABOUT)
    flags.add_argument("--only", choices=RUNS, help="one run alone")
    given = flags.parse_args(arguments)
    tell = (lambda line: print(line, file=sys.stderr)) if sys.stderr.isatty() else (lambda _line: None)
    names = [given.only] if given.only else list(RUNS)
    return form.deliver(lambda: run(names, given.quick, tell), given.out)


if __name__ == "__main__":
    sys.exit(main())
