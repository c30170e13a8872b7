"""Sources of lessons, and the notebooks made from them.

A source (src/NAME.py) is a script of cells in jupytext's percent format. In a code cell

    ### BEGIN SOLUTION
    #: answer = ...
    answer = 42
    ### END SOLUTION

the student gets the lines after ``#:``, the solution notebook the others.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
REGION = re.compile(
    r"^[ \t]*### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION[ \t]*(?:\n|\Z)", re.DOTALL | re.M
)
_STUB = re.compile(r"^([ \t]*)#: ?(.*)$")


@dataclass(frozen=True)
class Source:
    """The source of one lesson, ROOT/src/NAME.py."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def root(self) -> Path:
        """Folder of the student notebooks."""
        return self.path.parent.parent

    @cached_property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @cached_property
    def cells(self) -> list[NotebookNode]:
        """The cells as they are written, stubs and solutions both."""
        return jupytext.reads(self.text, fmt="py:percent").cells

    def target(self, *, solution: bool) -> Path:
        """Where the student or the solution notebook lies."""
        return self.root / ("solutions" if solution else "") / f"{self.name}.ipynb"

    def notebook(self, *, solution: bool) -> NotebookNode:
        """The student or the solution notebook, without outputs."""
        return convert(self.text, solution=solution)


def find_sources(root: Path) -> list[Source]:
    """All sources of a course, sorted."""
    return [Source(path) for path in sorted((root / "src").glob("[0-9]*.py"))]


def convert(text: str, *, solution: bool) -> NotebookNode:
    """Notebook without outputs from the text of a source."""
    notebook = jupytext.reads(text, fmt="py:percent")
    for i, cell in enumerate(notebook.cells):
        cell.id = f"cell-{i:02d}"
        cell.metadata = {k: v for k, v in cell.metadata.items() if k == "tags"}
        if cell.cell_type == "code":
            cell.source = split(cell.source, solution=solution)
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    nbformat.validate(notebook)
    return notebook


def split(code: str, *, solution: bool) -> str:
    """The student's or the solution's version of one code cell."""

    def choose(region: re.Match[str]) -> str:
        return "\n".join(region_lines(region, solution=solution)) + "\n"

    result = REGION.sub(choose, code + "\n").rstrip("\n")
    if "# BEGIN SOLUTION" in result or "# END SOLUTION" in result:
        raise ValueError(f"unbalanced BEGIN SOLUTION / END SOLUTION:\n{code}")
    return result


def region_lines(region: re.Match[str], *, solution: bool) -> list[str]:
    """The stub's or the answer's lines of one match of REGION.

    Raises
    ------
    ValueError
        If there is no stub.
    """
    stubs, answers = [], []
    for line in region[1].splitlines():
        stub = _STUB.match(line)
        if stub:
            stubs.append(stub[1] + stub[2])
        else:
            answers.append(line)
    if not stubs:
        raise ValueError(f"a solution needs a stub, lines that begin with '#:':\n{region[0]}")
    return answers if solution else stubs


def skeleton(notebook: NotebookNode) -> object:
    """All of a notebook that follows from its source."""
    cells = [(c.id, c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]
    return cells, notebook.metadata
