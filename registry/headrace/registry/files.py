"""Which files a registry folder has, and their bytes; nothing of what they say."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from headrace.registry.values import Reading
from headrace.registry.yaml_tree import FILE_BYTES_MAX, Mark

FILES_MAX: Final = 10_000
"""Most files of one registry."""


def read_files(folder: Path, reading: Reading) -> dict[str, bytes]:
    """Bytes by path relative to `folder`, in order; what cannot be read is reported."""
    texts: dict[str, bytes] = {}
    for path in _paths(folder, reading):
        reading.path = path.relative_to(folder).as_posix()
        try:
            with path.open("rb") as file:
                # One byte too many is enough to know that a file is too long.
                texts[reading.path] = file.read(FILE_BYTES_MAX + 1)
        except OSError as error:
            reading.report(Mark(1, 1), "FILE_READABLE", f"cannot be read: {error.strerror}")
        if len(texts) > FILES_MAX:
            sentence = f"more than {FILES_MAX} files; name the registry's folder"
            reading.report(Mark(1, 1), "FILE_COUNT_BOUNDED", sentence)
            return {}
    if not any(path.startswith("features/") for path in texts):
        reading.path = "features"
        sentence = f"no `features/**/*.yaml` in `{folder}`; name the registry's folder"
        reading.report(Mark(1, 1), "REGISTRY_HAS_GROUPS", sentence)
    return texts


def _paths(folder: Path, reading: Reading) -> Iterator[Path]:
    for part in ("features", "services"):
        for parent, folders, names in os.walk(folder / part):
            # Editors keep swap files beside, Kubernetes keeps a mount's versions in `..2026…`.
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(parent, name)
                if name.startswith("."):
                    continue
                if name.endswith(".yaml") and path.is_file():
                    yield path
                elif name.endswith((".yml", ".YAML", ".YML")):
                    reading.path = path.relative_to(folder).as_posix()
                    sentence = "would not be read; name it `.yaml`"
                    reading.report(Mark(1, 1), "FILE_NAMED_YAML", sentence)
    access = folder / "access.yaml"
    if access.is_file():
        yield access
