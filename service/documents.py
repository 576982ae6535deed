"""``python -m service.documents``: write the parts of docs/ that come from the code; no checkpoint is needed for that.

docs/openapi.json is the OpenAPI document; the table of errors in docs/api.md is the error table.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Final

from service.app import create_app
from service.errors import ERROR_TABLE
from service.http.openapi import render
from service.settings import Settings

DOCS: Final = Path(__file__).resolve().parents[1] / "docs"
_ERRORS: Final = re.compile(r"^\| status \| code \|.*?(?=^$)", re.MULTILINE | re.DOTALL)


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


def main() -> int:
    """Write both; returns the exit code."""
    (DOCS / "openapi.json").write_bytes(openapi_file())
    page = DOCS / "api.md"
    page.write_text(api_page(page.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
