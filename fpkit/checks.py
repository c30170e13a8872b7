"""Checks of exercises: a verdict on an answer, never an error.

A check says ``not attempted yet``, ``not yet: ...`` or ``ok``, so that "Run All" runs through with
every exercise unsolved. The tests themselves are in the modules ``checks_*``, one per lesson.
"""

import html
import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

Status = Literal["not attempted yet", "not yet", "ok"]

_COLOURS: dict[Status, str] = {
    "not attempted yet": "#767676",
    "not yet": "#b35c00",
    "ok": "#00795a",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What a check has to say; Jupyter shows it in colour, a shell as one line."""

    status: Status
    message: str = ""

    def __str__(self) -> str:
        return f"{self.status}: {self.message}" if self.message else self.status

    __repr__ = __str__

    def _repr_html_(self) -> str:
        sign = {"not attempted yet": "&#9711;", "not yet": "&#10007;", "ok": "&#10003;"}
        return (
            f'<span style="color: {_COLOURS[self.status]}; font-weight: bold">'
            f"{sign[self.status]} {html.escape(self.status)}</span>"
            f"{html.escape(': ' + self.message if self.message else '')}"
        )


Test = Callable[[Any], str | None]
_TESTS: dict[str, Test] = {}
_Value = TypeVar("_Value")


def exercise(name: str) -> Callable[[Test], Test]:
    """Register a test under `name`: it returns None if the answer is right, else what is wrong."""

    def register(test: Test) -> Test:
        if name in _TESTS:
            raise ValueError(f"there is already an exercise {name!r}")
        _TESTS[name] = test
        return test

    return register


def exercises() -> tuple[str, ...]:
    """Names of all exercises that have a check, sorted."""
    _load_lessons()
    return tuple(sorted(_TESTS))


def attempted(result: _Value) -> _Value:
    """`result` of a student's function, for tests; raises :class:`NotAttempted` if it is open."""
    if _is_open(result):
        raise NotAttempted
    return result


def check(name: str, answer: object) -> Verdict:
    """Check an answer; never raises because of the answer.

    Parameters
    ----------
    name : str
        Name of the exercise.
    answer : object
        ``...``, None, or a function that returns one of them counts as not attempted; so does a
        tuple, list or dict that holds one.

    Raises
    ------
    KeyError
        If there is no such exercise: a mistake in the notebook, not in the answer.

    Examples
    --------
    >>> check("peak-frequency", ...)
    not attempted yet
    >>> check("peak-frequency", 0.1).status
    'not yet'
    """
    if name not in exercises():
        raise KeyError(f"no exercise {name!r}: there are {', '.join(exercises())}")
    if _is_open(answer):
        return Verdict(status="not attempted yet")
    try:
        wrong = _TESTS[name](answer)
    except NotAttempted:
        return Verdict(status="not attempted yet")
    except Exception as error:  # the answer is foreign code: whatever it raises is its verdict
        return Verdict(status="not yet", message=f"it raised {type(error).__name__}: {error}")
    return Verdict(status="ok") if wrong is None else Verdict(status="not yet", message=wrong)


class NotAttempted(Exception):
    """An answer function returned ``...`` or None."""


def _is_open(answer: object) -> bool:
    if isinstance(answer, dict):
        return any(_is_open(value) for value in answer.values())
    if isinstance(answer, (tuple, list)):
        return any(_is_open(value) for value in answer)
    return answer is ... or answer is None


@cache
def _load_lessons() -> None:
    """Import the modules ``checks_*``: each registers its tests."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith("checks_"):
            importlib.import_module(f"fpkit.{module.name}")
