"""How long the first run takes: README's first command in a new folder, with an empty cache.

    python benchmarks/first_run.py [--times 3] [--costs] [--beside 1] [--out FOLDER]
    python benchmarks/first_run.py --records results/reference/tiny

Writes benchmarks/first_run.toml: seconds to the first row and of all rows, and the share of each
stage. Every time has an empty cache and another seed; `--out` keeps the records. `--beside N` keeps
N other processes busy meanwhile. `--costs` also writes what `bench run --dry-run` estimates from,
bench/config/costs.toml; `--records` writes that alone, from the records of a suite. Exit status 1
if a claim does not hold.
"""

import argparse
import dataclasses
import os
import re
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from bench.commands import estimate
from bench.config.loader import to_toml
from bench.results import storage
from bench.results.record import Record
from bench.runtime.workers import cores

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).with_suffix(".toml")
COSTS = ROOT / "bench" / "config" / "costs.toml"
MAX_FIRST_ROW, MAX_ALL_ROWS = 60.0, 600.0  # seconds, on two idle cores
MAX_BESIDE = 1320.0  # seconds of all rows, beside one busy process
STAGES = ("pretraining", "features", "probing", "rendering", "rest")
IN_FLIGHT = ("features", "checkpoints")  # folders of the cache that a finished encoder leaves empty
HEADER = (
    "# What suites took where they were measured: `bench run --dry-run` and the time left for all\n"
    "# cells are estimated from it. Written by benchmarks/first_run.py.\n"
)


@dataclasses.dataclass(frozen=True)
class FirstRun:
    """One measured run.

    Attributes:
        first_row: seconds until the first row was on the leaderboard.
        all_rows: seconds of the command.
        stages: seconds of each stage.
        megabytes: as `estimate.Costs` has them.
        cache: megabytes in the cache afterwards.
        records: of the run.
    """

    first_row: float
    all_rows: float
    stages: dict[str, float]
    megabytes: dict[str, float]
    cache: float
    records: list[Record]


def measure(methods: str, tasks: str, suite: str, seed: int, out: Path) -> FirstRun:
    """Run the command with an empty cache, where the records of lower seeds are up to date."""
    with tempfile.TemporaryDirectory() as scratch:
        cache = Path(scratch) / "cache"
        arguments = ["run", "--methods", methods, "--tasks", tasks, "--suite", suite]
        arguments += ["--seeds", str(seed + 1)]
        command = [sys.executable, "-m", "bench", *arguments, "--out", out, "--cache", cache]
        log = Path(scratch) / "log"
        with log.open("w") as stderr:
            started = time.monotonic()
            process = subprocess.Popen(
                list(map(str, command)), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=stderr
            )
            first_row, in_flight = watch(process, out / suite / "leaderboard.csv", cache)
            all_rows = time.monotonic() - started
        text = log.read_text()
        if process.returncode:
            raise SystemExit(f"{text}\nbench run ended with status {process.returncode}")
        records = [r for r in storage.read_all(out / suite).values() if r.seed == seed]
        trained = {(record.method, record.seed) for record in records if record.recipe}
        megabytes = {
            "images": size(cache / "scenes"),
            "encoder": size(cache / "encoders") / max(len(trained), 1),
            "record": size(out / suite) / len(records) / (seed + 1),
            "in_flight": in_flight,
        }
        stages = stage_seconds(records, text, all_rows)
        return FirstRun(first_row - started, all_rows, stages, megabytes, size(cache), records)


def watch(process: subprocess.Popen[Any], leaderboard: Path, cache: Path) -> tuple[float, float]:
    """Wait for a run: the time of its first row, and the most megabytes that were in flight."""
    first_row = 0.0
    most = 0.0
    earlier = modified(leaderboard)
    while process.poll() is None:
        if not first_row and modified(leaderboard) != earlier:
            first_row = time.monotonic()
        most = max(most, sum(size(cache / name) for name in IN_FLIGHT))
        time.sleep(0.2)
    return first_row or time.monotonic(), most


def modified(path: Path) -> int:
    """When a file was written, in nanoseconds; 0 if there is none."""
    return path.stat().st_mtime_ns if path.exists() else 0


def size(folder: Path) -> float:
    """Megabytes of the files below a folder; files that vanish meanwhile do not count."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_blocks * 512
            except FileNotFoundError:
                continue
    return total / 1e6


def stage_seconds(records: Sequence[Record], log: str, total: float) -> dict[str, float]:
    """Seconds of each stage of a run; what workers do side by side takes its share of the time."""
    workers = min(cores(), len({(record.method, record.seed) for record in records}))
    rendering = re.search(r"rendering ([\d.]+) s", log)
    trained = {(record.method, record.seed): record.pretraining.seconds for record in records}
    known = {
        "pretraining": sum(trained.values()) / workers,
        "features": sum(record.timings.get("features", 0.0) for record in records) / workers,
        "probing": sum(record.timings.get("probe", 0.0) for record in records) / workers,
        "rendering": float(rendering[1]) if rendering else 0.0,
    }
    return known | {"rest": total - sum(known.values())}


def result(runs: Sequence[FirstRun], command: str, machine: str) -> dict[str, Any]:
    """What is written of some runs of one command."""
    whole = mean(run.all_rows for run in runs)
    return {
        "command": command,
        "machine": machine,
        "rows": len(runs[0].records),
        "first_row": [round(run.first_row, 1) for run in runs],
        "all_rows": [round(run.all_rows, 1) for run in runs],
        "cache_megabytes": [round(run.cache) for run in runs],
        "seconds": {s: [round(run.stages[s], 1) for run in runs] for s in STAGES},
        "percent": {s: round(100 * mean(r.stages[s] for r in runs) / whole) for s in STAGES},
    }


def write_costs(suite: str, costs: estimate.Costs) -> None:
    """Replace the costs of one suite; tasks that were not measured keep theirs."""
    table: dict[str, Any] = tomllib.loads(COSTS.read_text(encoding="utf-8"))
    before = table.get(suite, {}).get("seconds_per_row", {})
    rows = before | costs.seconds_per_row
    table[suite] = dataclasses.asdict(dataclasses.replace(costs, seconds_per_row=rows))
    text = to_toml({name: table[name] for name in sorted(table)})
    COSTS.write_text(HEADER + text, encoding="utf-8")


def costs_of_records(folder: Path) -> None:
    """Write the costs of a suite from its records; what these do not have stays as it is."""
    records = list(storage.read_all(folder).values())
    suite = records[0].suite
    before = estimate.load(suite)
    megabytes: Mapping[str, float] = before.megabytes if before else {}
    once = before.seconds_once if before else 0.0
    write_costs(suite, estimate.measure(records, once, megabytes))


def main() -> int:
    """Measure, print and write; 1 if a claim fails."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", default="all")
    parser.add_argument("--tasks", default="voc_cls")
    parser.add_argument("--suite", default="mini")
    parser.add_argument("--times", type=int, default=1, help="how often to measure")
    parser.add_argument("--beside", type=int, default=0, help="processes that are busy meanwhile")
    parser.add_argument("--out", type=Path, help="where to keep the records")
    parser.add_argument("--costs", action="store_true", help="write costs.toml, too")
    parser.add_argument("--records", type=Path, help="OUT/SUITE: only write its costs")
    options = parser.parse_args()
    if options.records:
        costs_of_records(options.records)
        return 0
    named = (options.methods, options.tasks, options.suite)
    spinning = [sys.executable, "-c", "while True: pass"]
    others = [subprocess.Popen(spinning) for _ in range(options.beside)]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            out = options.out or Path(scratch)
            runs = [measure(*named, seed, out) for seed in range(options.times)]
    finally:
        for process in others:
            process.kill()
    last = runs[-1]
    once = last.stages["rest"] + last.stages["rendering"]
    costs = estimate.measure(last.records, max(once, 0.0), last.megabytes)
    if options.costs:
        write_costs(options.suite, costs)
    command = "bench run --methods {} --tasks {} --suite {}".format(*named)
    text = to_toml(result(runs, command, costs.machine))
    print(text)
    if options.beside:
        print(f"claim: all rows within {MAX_BESIDE:g} s beside one busy process")
        return int(any(run.all_rows > MAX_BESIDE for run in runs))
    RESULT.write_text(text, encoding="utf-8")
    print(f"claim: first row within {MAX_FIRST_ROW:g} s, all within {MAX_ALL_ROWS:g} s")
    return int(any(r.first_row > MAX_FIRST_ROW or r.all_rows > MAX_ALL_ROWS for r in runs))


if __name__ == "__main__":
    sys.exit(main())
