"""What ``kubectl apply -k`` would send, for the few things of kustomize that deploy/kubernetes uses.

Resources, components, images, and patches of JSON 6902 with ``add`` and ``replace``; anything else is refused, so that a
manifest cannot quietly use what these tests do not see.
"""

from __future__ import annotations

import copy
import re
from importlib import import_module
from pathlib import Path
from typing import Any

yaml = import_module("yaml")  # it ships no types

KNOWN = {"apiVersion", "kind", "namespace", "labels", "resources", "components", "images", "patches"}
Manifest = dict[str, Any]


def render(folder: Path) -> list[Manifest]:
    """All manifests of an overlay, a base or a component's own resources."""
    return rendered(folder, [])


def rendered(folder: Path, found: list[Manifest]) -> list[Manifest]:
    """The same on top of manifests that are there, as a component is."""
    text = yaml.safe_load((folder / "kustomization.yaml").read_text())
    assert set(text) <= KNOWN, f"{folder}: {set(text) - KNOWN} is not understood here"
    for name in text.get("resources", []):
        path = folder / name
        found = rendered(path, found) if path.is_dir() else [*found, *yaml.safe_load_all(path.read_text())]
    for name in text.get("components", []):
        found = rendered(folder / name, found)
    found = copy.deepcopy(found)
    for patch in text.get("patches", []):
        _patch(found, patch)
    for manifest in found:
        if "namespace" in text and manifest["kind"] != "Namespace":
            manifest["metadata"]["namespace"] = text["namespace"]
        for entry in text.get("labels", []):
            manifest["metadata"].setdefault("labels", {}).update(entry["pairs"])
        for image in text.get("images", []):
            for container in containers(manifest):
                if container["image"] == image["name"]:
                    container["image"] = f"{image['newName']}:{image['newTag']}"
    return found


def containers(manifest: Manifest) -> list[Manifest]:
    """Of a Deployment or StatefulSet."""
    spec = manifest.get("spec", {}).get("template", {}).get("spec", {})
    found: list[Manifest] = spec.get("containers", [])
    return found


def _patch(manifests: list[Manifest], patch: dict[str, Any]) -> None:
    target = patch["target"]
    meant = [
        manifest
        for manifest in manifests
        if re.fullmatch(target["kind"], manifest["kind"]) and re.fullmatch(target["name"], manifest["metadata"]["name"])
    ]
    assert meant, f"no manifest is {target}"
    for manifest in meant:
        for step in yaml.safe_load(patch["patch"]):
            _apply(manifest, step)


def _apply(manifest: Any, step: dict[str, Any]) -> None:
    assert step["op"] in ("add", "replace")
    *way, last = step["path"].strip("/").split("/")
    place = manifest
    for name in way:
        place = place[int(name)] if isinstance(place, list) else place[name]
    if isinstance(place, list):
        assert (step["op"], last) == ("add", "-")
        place.append(copy.deepcopy(step["value"]))
        return
    assert (last in place) == (step["op"] == "replace"), f"{step['op']} {step['path']}"
    place[last] = copy.deepcopy(step["value"])
