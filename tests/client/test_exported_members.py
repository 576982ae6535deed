"""The public surface: what ``__all__`` says is there and documented, and nothing else leaks."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import tracegrad_client

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "client.md"


def test_exported_members() -> None:
    public = {
        name
        for name, value in vars(tracegrad_client).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }
    assert public == set(tracegrad_client.__all__)
    assert list(tracegrad_client.__all__) == sorted(tracegrad_client.__all__)
    document = DOCUMENT.read_text()
    for name in public:
        assert getattr(tracegrad_client, name).__doc__, f"{name} has no docstring"
        assert f"`{name}`" in document, f"docs/client.md does not name `{name}`"
