"""Runs of notebooks: how long, with which verdicts, and what is kept of the outputs."""

import os
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from course.sources import METADATA, Source
from fpkit.lesson import checks_in

Budget = Literal["quick", "full"]

CELL_SECONDS: dict[Budget, int] = {"quick": 300, "full": 7200}
MIN_EXERCISES = 2
WIDGET = "application/vnd.jupyter.widget-view+json"
_ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What came of running one notebook: outputs, seconds, problems; did it reach its end?"""

    notebook: NotebookNode
    seconds: float
    problems: list[str] = field(default_factory=list)
    finished: bool = True


def run(
    source: Source, *, solution: bool, budget: Budget = "quick", threads: int | None = None
) -> Outcome:
    """Run the student or the solution notebook of a source; errors become problems.

    Parameters
    ----------
    source, solution
        Which notebook; it runs in the folder it belongs to, and nothing is written.
    budget : {"quick", "full"}
    threads : int, optional
        Of the mathematics of one notebook; default: as many as there are cores.
    """
    name = _name(source, solution=solution)
    try:
        notebook = source.notebook(solution=solution)
    except ValueError as error:
        empty = nbformat.v4.new_notebook()
        problems = [f"{name}: {error}"]
        return Outcome(notebook=empty, seconds=0.0, problems=problems, finished=False)
    environment = {"FPKIT_BUDGET": budget}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    folder = source.target(solution=solution).parent
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    try:
        execute(notebook, folder=folder, timeout=CELL_SECONDS[budget], environment=environment)
        seconds = time.perf_counter() - started
        clean(notebook)
    except CellTimeoutError:
        error = f"a cell ran longer than {CELL_SECONDS[budget]} s"
    except (CellExecutionError, DeadKernelError, ValueError) as failure:
        error = _ANSI.sub("", str(failure)).strip()
    else:
        wrong = [f"{name}: {text}" for text in verdict_problems(notebook, solution=solution)]
        return Outcome(notebook=notebook, seconds=seconds, problems=wrong)
    seconds = time.perf_counter() - started
    return Outcome(
        notebook=notebook, seconds=seconds, problems=[f"{name}: {error}"], finished=False
    )


def _name(source: Source, *, solution: bool) -> str:
    return str(source.target(solution=solution).relative_to(source.root))


def execute(
    notebook: NotebookNode,
    *,
    folder: Path,
    timeout: int = CELL_SECONDS["quick"],
    environment: dict[str, str] | None = None,
) -> None:
    """Run a notebook in place in `folder`, each cell at most `timeout` s; raise at an error."""
    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],  # not that loopback is unencrypted
    )
    client.execute(env=os.environ | (environment or {}))


def clean(notebook: NotebookNode) -> None:
    """Keep only outputs that can be read without a kernel; refuse warnings."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps would change with every build
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                if "Warning" in output.text:
                    raise ValueError(f"{cell.id} warns:\n{output.text}")
                continue
            data = output.get("data", {})
            live = data.pop(WIDGET, None) is not None
            # a widget without a kernel is only its repr; beside it there may be a picture
            if not live or "image/png" in data:
                kept.append(output)
        cell.outputs = kept
    notebook.metadata = nbformat.from_dict(METADATA)


def verdicts(notebook: NotebookNode) -> dict[str, str]:
    """What the check of each exercise shows in a notebook that ran; empty text if nothing."""
    found = {}
    for cell in notebook.cells:
        if cell.cell_type != "code" or not (checks := checks_in(cell.source)):
            continue
        results = [o for o in cell.outputs if o.output_type == "execute_result"]
        found[checks[-1].name] = results[-1].data.get("text/plain", "") if results else ""
    return found


def verdict_problems(notebook: NotebookNode, *, solution: bool) -> list[str]:
    """Verdicts that are not what a student or a solution notebook should show."""
    wanted = "ok" if solution else "not attempted yet"
    shown = verdicts(notebook)
    found = [
        f"exercise {name} says {verdict!r}, expected {wanted!r}"
        for name, verdict in shown.items()
        if verdict != wanted
    ]
    if len(shown) < MIN_EXERCISES:
        found.append(f"{len(shown)} exercises with a check, expected at least {MIN_EXERCISES}")
    return found
