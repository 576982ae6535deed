"""The queue of the plan in numbers: held against closed formulas, whose assumptions it can take."""

from __future__ import annotations

import numpy as np
import pytest
from queue_model import erlang_c_wait, pollaczek_khinchine_wait, simulate, simulate_closed

STATISTICAL = 0.05
"""Of means over 200,000 requests that wait for each other, relative."""
COUNT = 200_000


@pytest.mark.parametrize(("servers", "use"), [(1, 0.5), (4, 0.8), (16, 0.9)])
def test_exponential_service_gives_erlangs_wait(servers: int, use: float) -> None:
    service = np.random.default_rng(1).exponential(0.03, COUNT)
    rate = use * servers / float(service.mean())
    expected = erlang_c_wait(servers=servers, rate=rate, mean_s=float(service.mean()))
    found = simulate(service, servers=servers, rate=rate, count=COUNT)
    assert found.waited == pytest.approx(expected, rel=2 * STATISTICAL)


@pytest.mark.parametrize("use", [0.3, 0.7])
def test_any_service_of_one_server_gives_pollaczek_and_khinchines_wait(use: float) -> None:
    service = np.array([0.01] * 9 + [0.2])
    rate = use / float(service.mean())
    found = simulate(service, servers=1, rate=rate, count=COUNT)
    assert found.waited == pytest.approx(pollaczek_khinchine_wait(rate=rate, service_s=service), rel=STATISTICAL)


def test_clients_that_wait_obey_littles_law() -> None:
    """N = X R, with X the servers' rate where there is always work."""
    service = np.full(10, 0.05)
    found = simulate_closed(service, servers=2, clients=16, count=20_000)
    assert found.mean == pytest.approx(16 * 0.05 / 2, rel=STATISTICAL)


def test_a_balancer_that_looks_is_better_than_one_that_draws() -> None:
    service = np.random.default_rng(2).exponential(0.03, 1000)
    rate = 0.8 * 20 * 4 / 0.03
    means = [
        simulate(service, servers=4, rate=rate, count=40_000, replicas=20, choices=choices).mean
        for choices in (1, 2, 0)
    ]
    assert means[0] > means[1] > means[2]
