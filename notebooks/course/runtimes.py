"""Measured runtimes of the lessons (runtimes.json), as teach.runtime_badge reads them.

For each lesson ``{"quick": ENTRY, "full": {"cpu": ENTRY, "cuda": ENTRY}}``, where an entry has
``seconds``, ``cores`` and, of a GPU, its name as ``hardware``. What is not there was not measured.
"""

import json
import os
from pathlib import Path
from typing import Any

from course.execution import Budget
from fpkit.assets import write_text_atomic

FILE = "runtimes.json"


def load(root: Path) -> dict[str, Any]:
    """All runtimes of a course."""
    file = root / FILE
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def record(root: Path, name: str, seconds: float, *, budget: Budget) -> None:
    """Write down how long lesson `name` took on this machine, in `budget`."""
    runtimes = load(root)
    lesson = runtimes.setdefault(name, {})
    entry: dict[str, Any] = {"seconds": round(seconds), "cores": os.cpu_count()}
    if budget == "quick":
        lesson["quick"] = entry
    else:
        gpu = _gpu()
        if gpu:
            entry["hardware"] = gpu
        lesson.setdefault("full", {})["cuda" if gpu else "cpu"] = entry
    write_text_atomic(root / FILE, json.dumps(runtimes, indent=1, sort_keys=True) + "\n")


def _gpu() -> str | None:
    """Name of the GPU that the full budget uses here."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None
