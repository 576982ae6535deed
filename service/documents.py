"""``python -m service.documents``: write the parts of docs/ that come from the code; no checkpoint is needed for that.

docs/openapi.json is the OpenAPI document; the table of errors in docs/api.md is the error table; tracegrad.env.example has
every setting with its default.
"""

from __future__ import annotations

import inspect
import re
import sys
import textwrap
from pathlib import Path
from typing import Final

from service.app import create_app
from service.errors import ERROR_TABLE
from service.http.openapi import render
from service.settings import Settings

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_ERRORS: Final = re.compile(r"^\| status \| code \|.*?(?=^$)", re.MULTILINE | re.DOTALL)

_MEANINGS: Final = re.compile(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", re.MULTILINE | re.DOTALL)
_ENVIRONMENT_HEAD: Final = """\
# Copy to tracegrad.env, which docker-compose.yml reads if it is there, and uncomment what is to be
# different. HOST, PORT, CHECKPOINTS, COMPILED, JOBS_FOLDER and DEVICE are set in the containers: leave them.
# Written by python -m service.documents.
"""


def openapi_file() -> bytes:
    """docs/openapi.json."""
    return render(create_app(Settings()).openapi())


def api_page(page: str) -> str:
    """docs/api.md with its table of errors as the code has it."""
    return _ERRORS.sub(lambda _: errors_as_markdown(), page)


def errors_as_markdown() -> str:
    """The error table."""
    lines = ["| status | code | meaning |", "|---|---|---|"]
    for code, row in sorted(ERROR_TABLE.items(), key=lambda item: item[1].status):
        meaning = f"{row.title} ({row.note})" if row.note else row.title
        lines.append(f"| {row.status} | `{code}` | {meaning} |")
    return "\n".join(lines) + "\n"


def environment_file() -> str:
    """tracegrad.env.example: every setting as a comment, with what it means and its default."""
    meanings = _MEANINGS.findall(inspect.cleandoc(Settings.__doc__ or ""))
    lines = [_ENVIRONMENT_HEAD]
    for name, meaning in meanings:
        default = Settings.model_fields[name].default
        value = "" if default in (None, ()) else ",".join(default) if isinstance(default, tuple) else str(default)
        text = " ".join(meaning.split())
        lines += [
            *textwrap.wrap(text, 118, initial_indent="# ", subsequent_indent="# "),
            f"#TRACEGRAD_{name.upper()}={value}",
            "",
        ]
    return "\n".join(lines)


def main() -> int:
    """Write all; returns the exit code."""
    (DOCS.parent / "tracegrad.env.example").write_text(environment_file(), encoding="utf-8")
    (DOCS / "openapi.json").write_bytes(openapi_file())
    page = DOCS / "api.md"
    page.write_text(api_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
