"""The version of the client, as the installation knows it."""

from __future__ import annotations

from importlib import metadata


def installed_version() -> str:
    """Version of the distribution tracegrad-client; "unknown" where only the folder is there."""
    try:
        return metadata.version("tracegrad-client")
    except metadata.PackageNotFoundError:
        return "unknown"
