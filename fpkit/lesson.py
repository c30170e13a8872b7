"""What a lesson says about itself: its question, its minutes, what it needs, its exercises.

A lesson is a list of cells, mappings with ``cell_type`` and ``source``, as a notebook has them.
"""

import ast
import re
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Check", "Exercise", "Lesson", "checks_in", "outside_fences", "read_lesson"]

Difficulty = Literal["easy", "medium", "hard"]
Cell: TypeAlias = Mapping[str, Any]

LONGEST_CODE = 2**18  # characters of a cell: its syntax tree takes a thousand times that
POINTS: dict[str, int] = {"easy": 1, "medium": 2, "hard": 3}
HEADING = re.compile(
    r"^### Exercise (\d+): (.+?) \((\d+) minutes?, (easy|medium|hard)\)[ \t]*$", re.MULTILINE
)
_TITLE = re.compile(r"\A# (.+)$", re.MULTILINE)
_NEEDS = re.compile(r"^\*\*You need\*\* (.+)$", re.MULTILINE)
_TAKES = re.compile(r"^\*\*It takes\*\* (\d+) minutes\.$", re.MULTILINE)
_FENCE = re.compile(r"^```.*?^```[ \t]*$", re.MULTILINE | re.DOTALL)
_CHECK = re.compile(r"teach\.check\(\s*(['\"])(.+?)\1")


@dataclass(frozen=True, kw_only=True)
class Check:
    """One call of ``teach.check``.

    Attributes
    ----------
    name : str
        The exercise it names.
    answer : str or None
        The expression it checks, spaced in one way; None where the cell is no valid Python.
    """

    name: str
    answer: str | None


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise: its heading and the first check after it (None if there is none)."""

    number: int
    goal: str
    minutes: int
    difficulty: Difficulty
    check: Check | None

    @property
    def points(self) -> int:
        """1 for an easy, 2 for a medium, 3 for a hard exercise."""
        return POINTS[self.difficulty]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """What the cells of a lesson say; None or empty where they do not say it.

    Attributes
    ----------
    question : str or None
        The title.
    needs : str or None
        What a student has to know.
    minutes : int or None
        Of the student's time.
    exercises : tuple of Exercise
    """

    question: str | None
    needs: str | None
    minutes: int | None
    exercises: tuple[Exercise, ...]

    @property
    def points(self) -> int:
        """Of all exercises together."""
        return sum(exercise.points for exercise in self.exercises)


def read_lesson(cells: Sequence[Cell]) -> Lesson:
    """Read a lesson from its cells.

    Examples
    --------
    >>> heading = {"cell_type": "markdown", "source": "### Exercise 1: add (2 minutes, easy)"}
    >>> code = {"cell_type": "code", "source": "teach.check('sum', a + b)"}
    >>> read_lesson([heading, code]).exercises[0].check
    Check(name='sum', answer='a + b')
    """
    text = "\n\n".join(c["source"] for c in cells if c["cell_type"] == "markdown")
    text = outside_fences(text)
    title, needs, takes = (pattern.search(text) for pattern in (_TITLE, _NEEDS, _TAKES))
    return Lesson(
        question=title[1].strip() if title else None,
        needs=needs[1].strip() if needs else None,
        minutes=int(takes[1]) if takes else None,
        exercises=tuple(_exercises(cells)),
    )


def _exercises(cells: Iterable[Cell]) -> Iterable[Exercise]:
    heading: re.Match[str] | None = None
    for cell in cells:
        if cell["cell_type"] == "markdown":
            for found in HEADING.finditer(outside_fences(cell["source"])):
                if heading:
                    yield _exercise(heading, None)
                heading = found
        elif heading and (checks := checks_in(cell["source"])):
            yield _exercise(heading, checks[0])
            heading = None
    if heading:
        yield _exercise(heading, None)


def _exercise(heading: re.Match[str], check: Check | None) -> Exercise:
    number, goal, minutes, difficulty = heading.groups()
    return Exercise(
        number=int(number),
        goal=goal,
        minutes=int(minutes),
        difficulty=difficulty,  # type: ignore[arg-type]  # the pattern allows these three
        check=check,
    )


def checks_in(code: str) -> list[Check]:
    """All calls ``teach.check("name", answer)`` in a code cell, in order.

    Examples
    --------
    >>> checks_in("teach.check('sum',a+b)")
    [Check(name='sum', answer='a + b')]
    >>> checks_in("a = = 1; teach.check('sum', a)")  # only the name can be read
    [Check(name='sum', answer=None)]
    """
    try:
        if len(code) > LONGEST_CODE:
            raise ValueError("too long to be parsed")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the code, not of ours
            tree = ast.parse(code)
        calls = [node for node in ast.walk(tree) if _is_check(node)]
        calls.sort(key=lambda call: (call.lineno, call.col_offset))
        return [Check(name=c.args[0].value, answer=ast.unparse(c.args[1])) for c in calls]
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # as deep as a stranger likes
        return [Check(name=found[2], answer=None) for found in _CHECK.finditer(code)]


def _is_check(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and (node.func.value.id, node.func.attr) == ("teach", "check")
        and len(node.args) == 2
        and isinstance(node.args[0], ast.Constant)
        and isinstance(node.args[0].value, str)
    )


def outside_fences(text: str) -> str:
    """Markdown without its fenced code, whose comments would look like headings."""
    return _FENCE.sub("", text)
