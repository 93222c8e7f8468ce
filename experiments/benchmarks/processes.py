"""What a second process is worth: rows per second of the like head's training in two processes and in one.

    python -m experiments.benchmarks.processes [--quick] --out DIR

One batch of the same size is trained by one process with two threads, by one process with one thread, and by two
processes with a thread each, in turns, at ML-10M's table sizes and as a CPU trains so many rows: by rows; and by two
processes that exchange nothing, which is what two could do on this machine. Beside it, what two processes that train
whole tables with Adam pay for summing their gradients, as whole tables and as the rows that were looked up.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence

import torch
from torch import Tensor

from experiments.benchmarks import form
from widedeep import ModelConfig, distributed
from widedeep.config import TrainConfig
from widedeep.dropout import take_part
from widedeep.errors import TrainingError
from widedeep.gradients import sum_gradients
from widedeep.like_head import LikeHead
from widedeep.like_objective import RATE, RATE_BY_ROWS
from widedeep.objective import adam
from widedeep.rowwise import RowwiseAdagrad

ABOUT = "Train the like head in two processes, beside one with as many threads."
USERS, ITEMS, COLUMNS = 69_878, 10_677, 60
BATCH, STEPS = 16_384, 12
QUICK_BATCH, QUICK_STEPS = 512, 2
CASES = {  # processes, threads of each
    "two processes": (2, 1),
    "one process, two threads": (1, 2),
    "one process, one thread": (1, 1),
}
BY_ROWS, ROWS, TABLES = EXCHANGES = ("by rows", "Adam, rows", "Adam, whole tables")
APART = "two processes apart"  # each takes its half of the batch and keeps its gradients


def batch_of(step: int, size: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """user_index, item_index, features, liked: made up, frequent ones more frequent, the same in all processes."""
    generator = torch.Generator().manual_seed(step)
    skewed = torch.rand(2, size, generator=generator) ** 2
    users, items = (skewed[0] * USERS).int(), (skewed[1] * ITEMS).int()
    features = torch.randn(size, COLUMNS, generator=generator)
    return users, items, features, (torch.rand(size, generator=generator) < 0.5).float()


def optimizers_of(head: LikeHead) -> list[torch.optim.Optimizer]:
    if not head.by_rows:
        return [adam([{"params": list(head.parameters())}], RATE)]
    config = TrainConfig()
    rowwise = RowwiseAdagrad(head.embeddings(), config.embedding_learning_rate, config.embedding_decay)
    return [adam([{"params": head.layers()}], RATE_BY_ROWS), rowwise]


def child(size: int, steps: int, exchanges: Sequence[str]) -> None:
    """What each process runs; the first prints for each exchange the seconds of its steps, the CPU's of all processes,
    and those of the exchanges in its steps."""
    with distributed.join("cpu") as world:
        found = {exchange: steps_with(world, size, steps, exchange) for exchange in exchanges}
        if world.rank == 0:
            print(json.dumps(found))


def steps_with(world: distributed.World, size: int, steps: int, exchange: str) -> dict[str, list[float]]:
    torch.manual_seed(0)
    head = LikeHead(ModelConfig(), USERS, ITEMS, COLUMNS).train()
    head.by_rows = exchange in (BY_ROWS, APART)
    optimizers = optimizers_of(head)
    batches = [batch_of(step, size) for step in range(steps)]
    seconds, exchanges, own_cpu = [], [], []
    for number, (users, items, features, liked) in enumerate([batches[0], *batches]):
        world.sum(torch.zeros(1))  # all begin together
        started, cpu = time.perf_counter(), time.process_time()
        part = world.part(size)
        rows = part.rows
        take_part(head, part)
        loss = head.loss(users[rows], items[rows], features[rows], liked[rows], part)
        head.zero_grad()
        (loss * ((part.stop - part.start) / size)).backward()  # type: ignore[no-untyped-call]
        if world.size > 1:
            world.sum(torch.zeros(1))  # so that waiting for the other is not taken for the exchange
        together = time.perf_counter()
        found = [] if exchange == TABLES else head.looked_up(users[rows], items[rows])
        if exchange != APART:
            sum_gradients(world, head.parameters(), found)
        exchanged = time.perf_counter()
        for optimizer in optimizers:
            optimizer.step()
        if number:  # the first warms up
            seconds.append(time.perf_counter() - started)
            exchanges.append(exchanged - together)
            own_cpu.append(time.process_time() - cpu)
    cpu_of_all = world.sum(torch.tensor(own_cpu, dtype=torch.float64)).tolist()
    return {"steps": seconds, "cpu": cpu_of_all, "exchanges": exchanges}


def measure(case: str, size: int, steps: int, exchanges: Sequence[str]) -> dict[str, dict[str, list[float]]]:
    """What each exchange gave, in one start of the case's processes.

    Raises  TrainingError: a process has failed
    """
    processes, threads = CASES[case]
    module = ["-m", "experiments.benchmarks.processes", "--child", str(size), str(steps), *exchanges]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    done = subprocess.run(
        [sys.executable, *launch, *module],
        env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise TrainingError(f"{case}: the processes failed:\n{done.stderr}")
    found: dict[str, dict[str, list[float]]] = json.loads(done.stdout)
    return found


def rounds(size: int, steps: int, repeats: int) -> dict[str, list[dict[str, list[float]]]]:
    """What each case and each exchange gave, in turns."""
    found: dict[str, list[dict[str, list[float]]]] = {name: [] for name in (*CASES, APART, ROWS, TABLES)}
    for round_ in range(repeats):
        for case in _turned(list(CASES), round_):
            if sys.stderr.isatty():
                print(f"round {round_ + 1} of {repeats}: {case}", file=sys.stderr)
            exchanges = (
                _turned([BY_ROWS, APART, ROWS, TABLES], round_) if case == "two processes" else [BY_ROWS]
            )
            for exchange, given in measure(case, size, steps, exchanges).items():
                found[case if exchange == BY_ROWS else exchange].append(given)
    return found


def _turned(names: list[str], places: int) -> list[str]:
    places %= len(names)
    return [*names[places:], *names[:places]]


def run(size: int, steps: int, repeats: int) -> form.Report:
    report = form.Report(
        "Several processes",
        f"The like head at {USERS:,} users and {ITEMS:,} items, batches of {size:,} rows over all processes; "
        f"{repeats} rounds of {steps} steps in turns.",
    )
    found = rounds(size, steps, repeats)
    speed: dict[str, dict[str, float]] = {"median": {}, "fastest": {}}
    cpu = {}
    for name in (*CASES, APART):
        steps_of = [value for part in found[name] for value in part["steps"]]
        for metric, seconds in (("median", statistics.median(steps_of)), ("fastest", min(steps_of))):
            speed[metric][name] = size / seconds
            report.add(name, f"{metric} step", size / seconds, "rows/s")
        cpu[name] = statistics.median(value for part in found[name] for value in part["cpu"])
        report.add(name, "median step", size / cpu[name], "rows per CPU s")
    for metric, rates in speed.items():
        two = rates["two processes"]
        for name, times in ((APART, 1), ("one process, two threads", 1), ("one process, one thread", 2)):
            ratio = form.ratio_of_gains(two, times * rates[name])
            report.ratios[f"two processes/{times} x {name}, {metric} step"] = ratio
    alone = cpu["one process, one thread"]
    report.ratios["two processes/one process, one thread, CPU"] = form.ratio_of_costs(
        cpu["two processes"], alone
    )
    costs = {}
    for exchange, key in zip(EXCHANGES, ("two processes", ROWS, TABLES), strict=True):
        costs[exchange] = statistics.median(value for part in found[key] for value in part["exchanges"])
        report.add(exchange, "exchange of gradients", 1000 * costs[exchange], "ms a step")
    report.ratios["rows/whole tables, exchange"] = form.ratio_of_costs(costs[ROWS], costs[TABLES])
    report.notes.append(
        "rows/s are of the clock: another job on the machine disturbs them, the fastest step the least. CPU seconds "
        "are those of all processes: what two do beyond the work of one, without what they wait for each other."
    )
    report.notes.append(
        "An efficiency of 1 is two processes that are as fast as two that exchange nothing. Two of one thread that run "
        "beside each other may each be slower than one by itself, where cores share what they have."
    )
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words[:1] == ["--child"]:
        child(int(words[1]), int(words[2]), words[3:])
        return 0
    options = form.parser("processes", ABOUT).parse_args(words)
    size, steps = (QUICK_BATCH, QUICK_STEPS) if options.quick else (BATCH, STEPS)
    return form.deliver(lambda: run(size, steps, 1 if options.quick else form.REPEATS), options.out)


if __name__ == "__main__":
    sys.exit(main())
