"""Copies to hand out: without printed solutions, plain or as instructor's notebooks for nbgrader.

The metadata follow nbgrader's schema 3 (https://nbgrader.readthedocs.io, "The format of nbgrader
cell metadata"). An exercise of a lesson becomes two cells: the student's, with the stub and,
between nbgrader's markers, the answer; and a locked one with hidden tests, which raises unless the
check says ok. ``nbgrader generate_assignment`` takes the answers and the hidden tests away.
"""

import ast
import re
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from course.sources import REGION, Source, region_lines
from fpkit.assets import write_text_atomic
from fpkit.lesson import Exercise, checks_in, read_lesson

SCHEMA = 3
BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
CONFIG = """\
c = get_config()

c.CourseDirectory.course_id = "fpkit"
# the stubs stand before the solutions: where a solution was, nothing has to be put
c.ClearSolutions.code_stub = {"python": ""}
c.Execute.timeout = 600  # seconds for one cell
"""
_SOLUTION = re.compile(r"<details><summary>Solution</summary>.*?</details>\n?", re.DOTALL)


def write_assignments(sources: list[Source], folder: Path) -> list[Path]:
    """Write ``source/NAME/NAME.ipynb`` for every source, and ``nbgrader_config.py`` if missing."""
    written = []
    for source in sources:
        target = folder / "source" / source.name / f"{source.name}.ipynb"
        write_text_atomic(target, nbformat.writes(assignment(source)) + "\n")
        written.append(target)
    if not (folder / "nbgrader_config.py").exists():
        write_text_atomic(folder / "nbgrader_config.py", CONFIG)
    return written


def write_handout(sources: list[Source], folder: Path) -> list[Path]:
    """Write the student notebooks as ``NAME.ipynb``, without printed solutions and outputs."""
    written = []
    for source in sources:
        notebook = source.notebook(solution=False)
        notebook.cells = [cell for cell in map(_without_solution, notebook.cells) if cell.source]
        written.append(folder / f"{source.name}.ipynb")
        write_text_atomic(written[-1], nbformat.writes(notebook) + "\n")
    return written


def _without_solution(cell: NotebookNode) -> NotebookNode:
    if cell.cell_type == "markdown":
        cell.source = _SOLUTION.sub("", cell.source).strip()
    return cell


def assignment(source: Source) -> NotebookNode:
    """The instructor's notebook of a lesson, without outputs and without printed solutions."""
    notebook = source.notebook(solution=False)
    by_check = {e.check.name: e for e in read_lesson(source.cells).exercises if e.check}
    cells = []
    for cell, original in zip(notebook.cells, source.cells, strict=True):
        if not _without_solution(cell).source:
            continue
        cells.append(cell)
        if cell.cell_type == "markdown":
            continue
        checks = checks_in(cell.source)
        if REGION.search(original.source + "\n"):
            grade_id = checks[0].name if checks else cell.id
            cell.source = mark(original.source)
            cell.metadata["nbgrader"] = _metadata(f"{grade_id}-answer", solution=True)
        cells += [_grade_cell(by_check[c.name]) for c in checks if c.name in by_check]
    notebook.cells = cells
    nbformat.validate(notebook)
    return notebook


def _metadata(grade_id: str, *, solution: bool, points: int | None = None) -> dict[str, Any]:
    found: dict[str, Any] = {
        "schema_version": SCHEMA,
        "grade_id": grade_id,
        "grade": points is not None,
        "solution": solution,
        "locked": not solution,
        "task": False,
    }
    return found if points is None else found | {"points": points}


def _grade_cell(exercise: Exercise) -> NotebookNode:
    assert exercise.check is not None
    name, points = exercise.check.name, exercise.points
    code = (
        f"# {points} point{'' if points == 1 else 's'} ({exercise.difficulty})\n"
        "### BEGIN HIDDEN TESTS\n"
        f'verdict = teach.check("{name}", {exercise.check.answer})\n'
        'assert verdict.status == "ok", verdict\n'
        "### END HIDDEN TESTS"
    )
    cell = nbformat.v4.new_code_cell(code, id=f"grade-{exercise.number:02d}")
    cell.metadata["nbgrader"] = _metadata(f"{name}-points", solution=False, points=points)
    return cell


def mark(code: str) -> str:
    """A code cell of a source with the stub first, then the answer between nbgrader's markers.

    The answer replaces the stub when both run. A region inside a function grows to the whole
    function, for there the stub would return before the answer.

    Raises
    ------
    ValueError
        If one statement holds two regions.
    """
    code += "\n"
    for region in reversed(list(REGION.finditer(code))):
        before, after = code[: region.start()], code[region.end() :]
        stub, answer = (region_lines(region, solution=s) for s in (False, True))
        if region[0][0].isspace():
            above, below = _around(before, answer, after)
            before, head = _cut(before, len(before.splitlines()) - above)
            tail, after = _cut(after, below)
            if BEGIN in head + tail:
                raise ValueError(f"two solutions in one statement, nbgrader needs one:\n{code}")
            stub, answer = (
                [*head.splitlines(), *part, *tail.splitlines()] for part in (stub, answer)
            )
        code = "\n".join([before + "\n".join(stub), BEGIN, *answer, END, after])
    return code.rstrip("\n")


def _around(before: str, answer: list[str], after: str) -> tuple[int, int]:
    """How many lines above and below `answer` belong to the same statement of the cell."""
    first = len(before.splitlines()) + 1
    last = first + len(answer) - 1
    tree = ast.parse(before + "\n".join(answer) + "\n" + after)
    for node in tree.body:
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
        if start <= first and last <= (node.end_lineno or start):
            return first - start, (node.end_lineno or start) - last
    raise ValueError(f"no statement around the solution:\n{before}")


def _cut(text: str, line: int) -> tuple[str, str]:
    """`text` up to before line `line` (from 0), and from there on."""
    lines = text.splitlines(keepends=True)
    return "".join(lines[:line]), "".join(lines[line:])
