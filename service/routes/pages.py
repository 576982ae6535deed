"""The two pages for people: ``/`` to try a structure, ``/docs`` to read the contract. No external assets, so they work
without an internet connection.
"""

from __future__ import annotations

import base64
import hashlib
import re
from functools import cache
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

_FOLDER = Path(__file__).resolve().parent.parent / "static"
_INLINE = re.compile(r"<(script|style)>(.*?)</\1>", re.DOTALL)


@router.get("/")
async def index() -> HTMLResponse:
    """What this is, and a form to try it."""
    return _page("index.html")


@router.get("/docs")
async def docs() -> HTMLResponse:
    """The routes and schemas of /openapi.json, readable."""
    return _page("docs.html")


def _page(name: str) -> HTMLResponse:
    text, policy = _load(name)
    return HTMLResponse(text, headers={"Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"})


@cache
def _load(name: str) -> tuple[str, str]:
    """A page and a policy that lets exactly its own inline script and style run."""
    text = (_FOLDER / name).read_text(encoding="utf-8")
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, content in _INLINE.findall(text):
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        hashes[kind].append(f"'sha256-{digest}'")
    policy = (
        f"default-src 'none'; connect-src 'self'; img-src blob:; script-src {' '.join(hashes['script'])}; "
        f"style-src {' '.join(hashes['style'])}; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    )
    return text, policy
