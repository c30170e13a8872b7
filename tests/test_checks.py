"""Checks: right answers pass, every kind of wrong one gets a reason, open ones count as open.

The answers are in tests/answers/, a file per module ``fpkit/checks_*``: dictionaries RIGHT, WRONG
and OPEN from the name of an exercise to a list of answers.
"""

import importlib.util
from pathlib import Path

import pytest

from fpkit.checks import Verdict, check, exercise, exercises

RIGHT, WRONG, OPEN = {}, {}, {}
for file in sorted((Path(__file__).parent / "answers").glob("*.py")):
    spec = importlib.util.spec_from_file_location(f"answers_{file.stem}", file)
    answers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(answers)
    for known, more in ((RIGHT, answers.RIGHT), (WRONG, answers.WRONG), (OPEN, answers.OPEN)):
        assert not set(known) & set(more), f"{file.stem} repeats an exercise"
        known.update(more)


def test_every_exercise_is_tried_here():
    assert all(RIGHT.values()) and all(WRONG.values()) and all(OPEN.values())
    assert set(exercises()) == set(RIGHT) == set(WRONG) == set(OPEN)


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in RIGHT for a in RIGHT[n]])
def test_right_answers_are_ok(name, answer):
    assert check(name, answer) == Verdict(status="ok")


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in WRONG for a in WRONG[n]])
def test_wrong_answers_get_a_reason_and_nothing_is_raised(name, answer):
    verdict = check(name, answer)
    assert verdict.status == "not yet" and len(verdict.message) > 10
    assert str(verdict).startswith("not yet: ")


@pytest.mark.parametrize(("name", "answer"), [(n, a) for n in OPEN for a in OPEN[n]])
def test_untouched_stubs_count_as_not_attempted(name, answer):
    assert str(check(name, answer)) == "not attempted yet"


def test_a_mistake_of_the_notebook_is_an_error():
    with pytest.raises(KeyError, match="no exercise 'nosuch'"):
        check("nosuch", 1)
    with pytest.raises(ValueError, match="already an exercise"):
        exercise("peak-frequency")(lambda answer: None)


def test_verdicts_are_escaped_in_html():
    shown = Verdict(status="not yet", message="<b>")._repr_html_()
    assert "&lt;b&gt;" in shown and "<b>" not in shown
