"""Grade submitted notebooks: run them afresh, ask the checks, say what each exercise is worth.

Running a notebook runs code that somebody else wrote, with your rights: files, network, secrets in
the environment. Grade in a sandbox (a container, or an account that owns nothing else). The checks
run in the same process as that code, so a determined cheat can fool them; what this module tells
apart are honest accidents, and checks that are gone or ask for something else than the lesson's.
"""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from fpkit.artefacts import read_text
from fpkit.checks import Status
from fpkit.lesson import Exercise, Lesson, checks_in

if TYPE_CHECKING:
    from nbformat import NotebookNode

__all__ = ["Grade", "Submission", "grade"]

GradeStatus = Literal[
    "ok", "not yet", "not attempted yet", "error", "check edited", "check missing", "not run"
]
RunState = Literal["ran", "crashed", "timed out", "kernel died", "unreadable"]

VERDICT = "application/vnd.fpkit.verdict+json"
NOTEBOOK_BYTES = 2**25  # 32 MiB: many pictures
_OURS = "fpkit_exercise"  # metadata of the cells that are added to a submission
_ASK = """\
from IPython.display import display as _show
from fpkit.checks import check as _check
_verdict = _check({name!r}, {answer})
_show({{{mime!r}: [{token!r}, _verdict.status, _verdict.message]}}, raw=True)
"""


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What one exercise of one submission is worth.

    Attributes
    ----------
    exercise : Exercise
        As the lesson has it.
    status : str
        The check's verdict (``ok``, ``not yet``, ``not attempted yet``), or why there is none:
        ``error`` (its cell raised), ``check edited``, ``check missing``, ``not run`` (the notebook
        ended before).
    message : str
        Of the check or of the error.
    """

    exercise: Exercise
    status: GradeStatus
    message: str = ""

    @property
    def points(self) -> int:
        """Those of the exercise if it is ok, else 0."""
        return self.exercise.points if self.status == "ok" else 0


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One graded notebook.

    Attributes
    ----------
    student, lesson : str
    path : Path
    state : str
        ``ran``; ``crashed``: a cell raised, those after it were run all the same; ``timed out``;
        ``kernel died``; ``unreadable``: no notebook, nothing was run.
    message : str
        The first error.
    grades : tuple of Grade
        In the lesson's order.
    seconds : float
        Of running it.
    """

    student: str
    lesson: str
    path: Path
    state: RunState
    message: str
    grades: tuple[Grade, ...]
    seconds: float

    @property
    def points(self) -> int:
        """All points of this notebook."""
        return sum(grade.points for grade in self.grades)


def grade(
    path: str | Path, lesson: Lesson, *, student: str, name: str, timeout: float = 600
) -> Submission:
    """Run one submitted notebook in a fresh kernel and grade it; never raises because of it.

    Parameters
    ----------
    path : str or Path
        The notebook; it runs in its own folder, in the budget ``quick``, and is not changed.
    lesson : Lesson
        With the exercises that it should have.
    student, name : str
        Whose it is, and the name of the lesson.
    timeout : float
        Seconds for the whole notebook; what was graded before counts.

    Raises
    ------
    ValueError
        If nbclient is not installed, the timeout is not positive, or the lesson has exercises
        without a check.
    """
    if timeout <= 0:
        raise ValueError(f"timeout must be greater than 0 s, got {timeout:g}")
    if any(exercise.check is None for exercise in lesson.exercises):
        raise ValueError(f"{name}: an exercise has no teach.check, it cannot be graded")
    path = Path(path)
    started = time.monotonic()
    token = secrets.token_hex(8)
    try:
        notebook = read_notebook(path)
    except (OSError, ValueError) as error:
        state, message, grades = "unreadable", _one_line(str(error)), _nothing(lesson)
    else:
        _insert_questions(notebook, lesson, token)
        state, message = _run(notebook, path.resolve().parent, timeout)
        grades = [_grade(notebook, exercise, token) for exercise in lesson.exercises]
    return Submission(
        student=student,
        lesson=name,
        path=path,
        state=state,
        message=message,
        grades=tuple(grades),
        seconds=time.monotonic() - started,
    )


def read_notebook(path: Path) -> NotebookNode:
    """A notebook in format 4.

    Raises
    ------
    ValueError
        If the file is no notebook, or nbformat is not installed.
    OSError
        If it cannot be read.
    """
    nbformat = _need("nbformat")
    try:
        notebook = nbformat.reads(read_text(path, most=NOTEBOOK_BYTES), as_version=4)
        nbformat.validate(notebook)
    except OSError:
        raise
    except Exception as error:  # whatever is in a foreign file, brackets without end too
        raise ValueError(f"{path} is no notebook: {_one_line(str(error))}") from None
    return notebook


def _need(name: str) -> Any:
    try:
        return import_module(name)
    except ModuleNotFoundError:
        raise ValueError(
            f"grading needs {name}, which comes with JupyterLab: pip install 'fpkit[lab]'"
        ) from None


def _nothing(lesson: Lesson) -> list[Grade]:
    return [Grade(exercise=exercise, status="not run") for exercise in lesson.exercises]


# ---- running -----------------------------------------------------------------------------------


def _insert_questions(notebook: NotebookNode, lesson: Lesson, token: str) -> None:
    """Forget all outputs; after each exercise's cell ask its check about the lesson's answer."""
    new_code_cell = _need("nbformat").v4.new_code_cell
    known = {e.check.name: e.check for e in lesson.exercises if e.check}
    cells = []
    for cell in notebook.cells:
        cells.append(cell)
        if cell.cell_type != "code":
            continue
        cell.outputs, cell.execution_count = [], None
        cell.metadata.pop("tags", None)  # tags could skip a cell, or allow it to raise
        cell.metadata.pop(_OURS, None)
        for found in checks_in(cell.source):
            check = known.pop(found.name, None)
            if check is not None:
                ask = _ASK.format(name=check.name, answer=check.answer, mime=VERDICT, token=token)
                edited = found.answer not in (None, check.answer)
                ours = {"name": check.name, "edited": found.answer if edited else None}
                cells.append(new_code_cell(ask, metadata={_OURS: ours}))
    notebook.cells = cells


def _run(notebook: NotebookNode, folder: Path, timeout: float) -> tuple[RunState, str]:
    nbclient = _need("nbclient")
    deadline = time.monotonic() + timeout
    client = nbclient.NotebookClient(
        notebook,
        kernel_name="python3",
        timeout_func=lambda cell: max(1, round(deadline - time.monotonic())),
        allow_errors=True,
        shutdown_kernel="immediate",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )
    try:
        client.execute(env=os.environ | {"FPKIT_BUDGET": "quick"})
    except nbclient.exceptions.CellTimeoutError:
        return "timed out", f"longer than {timeout:g} s"
    except nbclient.exceptions.DeadKernelError:
        return "kernel died", "out of memory, or it ended itself"
    except Exception as error:  # such as a cell that cannot be sent; the others are still graded
        return "crashed", _one_line(f"{type(error).__name__}: {error}")
    for i, cell in enumerate(c for c in notebook.cells if _OURS not in c.metadata):
        if error := _error(cell):
            return "crashed", f"cell {i}: {error}"
    return "ran", ""


def _error(cell: NotebookNode) -> str | None:
    for output in cell.get("outputs", ()):
        if output.output_type == "error":
            return _one_line(f"{output.ename}: {output.evalue}")
    return None


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:199] + "…"


def _grade(notebook: NotebookNode, exercise: Exercise, token: str) -> Grade:
    """The grade of one exercise from the outputs of a notebook that ran."""
    assert exercise.check is not None
    cells, name = notebook.cells, exercise.check.name
    asked = [i for i, c in enumerate(cells) if c.metadata.get(_OURS, {}).get("name") == name]
    if not asked:
        return Grade(exercise=exercise, status="check missing")
    answer, question = cells[asked[0] - 1], cells[asked[0]]
    edited = question.metadata[_OURS]["edited"]
    if edited is not None:
        message = f"it checks {edited!r}, the lesson {exercise.check.answer!r}"
        return Grade(exercise=exercise, status="check edited", message=_one_line(message))
    if error := _error(answer) or _error(question):
        return Grade(exercise=exercise, status="error", message=error)
    for output in question.outputs:
        said = output.get("data", {}).get(VERDICT)
        if isinstance(said, list) and said[0] == token and said[1] in get_args(Status):
            return Grade(exercise=exercise, status=said[1], message=_one_line(str(said[2])))
    return Grade(exercise=exercise, status="not run")
