"""The app's routes as patterns: which templates fit a path, and with which methods."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from fastapi import FastAPI
from fastapi.routing import iter_route_contexts

# the path as the router will read it: a root path is cut off
from starlette._utils import get_route_path
from starlette.routing import compile_path
from starlette.types import Scope


class RoutePattern(NamedTuple):
    """One route: what matches its paths, how it was declared (``/v1/jobs/{id}``), and the methods that it knows."""

    pattern: re.Pattern[str]
    template: str
    methods: frozenset[str]


def route_patterns(app: FastAPI) -> list[RoutePattern]:
    """All routes of an app, in the order in which they are tried."""
    return [
        RoutePattern(compile_path(route.path)[0], route.path, frozenset(route.methods or ()))
        for route in iter_route_contexts(app.routes)
        if route.path is not None
    ]


def fitting(routes: Sequence[RoutePattern], scope: Scope) -> Iterator[RoutePattern]:
    """Those whose path that of a request is, whatever its method."""
    path = get_route_path(scope)
    return (route for route in routes if route.pattern.match(path))
