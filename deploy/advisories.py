"""Known weaknesses of pinned packages, by pip-audit; what no database knew of is said, and is no failure.

``python deploy/advisories.py constraints.txt``, in an environment with pip-audit. Exit code 0: none known, or nobody to ask;
1: some are known.
"""

from __future__ import annotations

import json
import subprocess
import sys


def main() -> int:
    """Ask; the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", sys.argv[1], "--no-deps", "--disable-pip"]
    command += ["--progress-spinner", "off", "--format", "json"]
    asked = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        packages = json.loads(asked.stdout)["dependencies"]
    except (ValueError, KeyError):
        last = (asked.stderr.strip().splitlines() or ["pip-audit said nothing"])[-1]
        print(f"nothing was checked: no database of advisories can be reached from here ({last})", file=sys.stderr)
        return 0
    checked = [package for package in packages if "skip_reason" not in package]
    print(f"{len(checked)} of {len(packages)} packages were checked")
    if len(checked) < len(packages):
        print("the database that was asked does not know the others: ask another, or from elsewhere", file=sys.stderr)
    known = [(package["name"], package["version"], weakness) for package in checked for weakness in package["vulns"]]
    for name, version, weakness in known:
        better = ", ".join(weakness["fix_versions"]) or "no version yet"
        print(f"{name} {version}: {weakness['id']}, mended in {better}")
    return 1 if known else 0


if __name__ == "__main__":
    sys.exit(main())
