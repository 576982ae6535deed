"""The report of the soak test, for docs/benchmarks.md."""

from __future__ import annotations

import argparse
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

HEALTH_LIMIT_MS = 100.0
MOST_FAULTS_SHOWN = 20
BY_VARIANT = ("predict", "guess")


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(percent / 100.0 * len(ordered)))]


def print_report(figures: dict[str, Any], arguments: argparse.Namespace) -> int:
    """Print everything; the exit code."""
    books, seconds = figures["books"], figures["seconds"]
    total = sum(books.answers.values())
    print(
        f"{arguments.clients} clients, seed {arguments.seed}, {seconds:.0f} s after {arguments.warm_up:.0f} s of warm-up"
    )
    print(
        f"{total} requests, {total / seconds:.1f}/s; {books.structures} structures, {books.structures / seconds:.1f}/s; "
        f"service CPU {figures['cpu']:.0f} s ({figures['cpu'] / seconds:.2f} cores)"
    )
    print("\nanswers by status and code")
    by_code: Counter[tuple[int, str]] = Counter()
    for (_, status, code), count in books.answers.items():
        by_code[status, code or ""] += count
    for (status, code), count in sorted(by_code.items()):
        print(f"  {status} {code:28}{count:7}")
    print(f"\n{'latency, ms':28}{'n':>6}{'p50':>9}{'p90':>9}{'p99':>9}{'max':>9}")
    groups: defaultdict[str, list[float]] = defaultdict(list)
    for kind, values in books.seconds.items():
        name = kind.partition(": ")[0]
        groups[kind if name in BY_VARIANT else name] += [1e3 * value for value in values]
    for kind, milliseconds in sorted(groups.items()):
        cells = [percentile(milliseconds, percent) for percent in (50, 90, 99)] + [max(milliseconds)]
        print(f"  {kind:26}{len(milliseconds):6}" + "".join(f"{value:9.1f}" for value in cells))
    faults = figures["faults"]
    health = [1e3 * value for value in figures["health"]]
    slow = percentile(health, 99)
    print(
        f"\n/health/live, from its own process: n {len(health)}, p50 {statistics.median(health):.1f} ms, "
        f"p99 {slow:.1f} ms, max {max(health):.1f} ms (limit at p99: {HEALTH_LIMIT_MS:.0f} ms)"
    )
    if slow > HEALTH_LIMIT_MS and arguments.strict:
        faults.append(f"/health/live took {slow:.0f} ms at the 99th percentile")
    before, after = figures["memory"]
    print(
        f"memory: {before / 1e6:.0f} MB after the warm-up, {after / 1e6:.0f} MB at the end ({after / before - 1:+.1%})"
    )
    print("jobs: " + ", ".join(f"{name} {count}" for name, count in sorted(books.jobs.items())))
    print("left behind: " + ", ".join(f"{name} {value:g}" for name, value in figures["left"].items()))
    for text, count in Counter(faults).most_common(MOST_FAULTS_SHOWN):
        print(f"FAULT {count} x {text}")
    print(f"{len(faults)} faults")
    return 1 if faults else 0
