"""A queue with several servers by simulation: Poisson arrivals, service times drawn from what was measured (M/G/c)."""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Waiting:
    """Seconds between arrival and end of service.

    Attributes:
        mean, median, p95, p99: of all requests after the warm-up.
        waited: mean seconds before service begins.
    """

    mean: float
    median: float
    p95: float
    p99: float
    waited: float


def simulate(
    service_s: NDArray[np.float64],
    *,
    servers: int,
    rate: float,
    count: int,
    replicas: int = 1,
    choices: int = 0,
    seed: int = 0,
) -> Waiting:
    """First come, first served at each replica.

    Args:
        service_s: measured service times, drawn with replacement, seconds.
        servers: of each replica.
        rate: arrivals a second at all replicas together.
        count: requests; the first tenth is the warm-up.
        replicas: each with a queue of its own.
        choices: how a balancer chooses: the replica with the least work of so many drawn ones; 0 takes the least of all.
        seed: of the random numbers.
    """
    random = np.random.default_rng(seed)
    arrivals = np.cumsum(random.exponential(1.0 / rate, count))
    services = random.choice(service_s, count)
    free = [[0.0] * servers for _ in range(replicas)]
    ends = np.empty(count)
    waits = np.empty(count)
    for index in range(count):
        now = arrivals[index]
        drawn = range(replicas) if not choices else random.integers(replicas, size=choices)
        chosen = free[0] if replicas == 1 else min((free[k] for k in drawn), key=lambda own: max(own[0], now))
        begin = max(heapq.heappop(chosen), now)
        ends[index] = begin + services[index]
        waits[index] = begin - now
        heapq.heappush(chosen, ends[index])
    kept = slice(count // 10, None)
    taken = (ends - arrivals)[kept]
    return Waiting(
        mean=float(taken.mean()),
        median=float(np.median(taken)),
        p95=float(np.quantile(taken, 0.95)),
        p99=float(np.quantile(taken, 0.99)),
        waited=float(waits[kept].mean()),
    )


def simulate_closed(
    service_s: NDArray[np.float64], *, servers: int, clients: int, count: int, seed: int = 0
) -> Waiting:
    """Clients that send their next request when they have the last answer.

    Args:
        service_s, servers, count, seed: as of :func:`simulate`.
        clients: how many.
    """
    random = np.random.default_rng(seed)
    services = random.choice(service_s, count)
    free = [0.0] * servers
    ready = [0.0] * clients
    taken, waits = np.empty(count), np.empty(count)
    for index in range(count):
        now = heapq.heappop(ready)
        begin = max(heapq.heappop(free), now)
        end = begin + services[index]
        taken[index], waits[index] = end - now, begin - now
        heapq.heappush(free, end)
        heapq.heappush(ready, end)
    kept = taken[count // 10 :]
    return Waiting(
        mean=float(kept.mean()),
        median=float(np.median(kept)),
        p95=float(np.quantile(kept, 0.95)),
        p99=float(np.quantile(kept, 0.99)),
        waited=float(waits[count // 10 :].mean()),
    )


def erlang_c_wait(*, servers: int, rate: float, mean_s: float) -> float:
    """Mean wait of M/M/c, seconds (Erlang, 1917): what the simulation must give for exponential service times."""
    load = rate * mean_s
    terms = [load**k / math.factorial(k) for k in range(servers)]
    last = load**servers / math.factorial(servers) * servers / (servers - load)
    return last / (sum(terms) + last) * mean_s / (servers - load)


def pollaczek_khinchine_wait(*, rate: float, service_s: NDArray[np.float64]) -> float:
    """Mean wait of M/G/1, seconds (Pollaczek, 1930; Khinchine, 1932)."""
    use = rate * float(service_s.mean())
    return rate * float(np.square(service_s).mean()) / (2.0 * (1.0 - use))
