"""Grading: every way in which a submission can be right, wrong or broken is told apart."""

import csv
import json

import nbformat
import pytest

from fpkit import cli, grading
from fpkit.cli_grade import csv_text, find_submissions, load_lessons
from fpkit.grading import Grade, Submission, grade
from fpkit.lesson import Check, Exercise, Lesson, checks_in, read_lesson

SETUP = """\
from fpkit import checks as teach
for name in ("one", "two", "three", "four", "five"):
    teach.exercise(name)(lambda answer: None if answer == 42 else "it is 42")
"""
LEVELS = ("easy", "easy", "medium", "hard", "easy")
NAMES = ("one", "two", "three", "four", "five")
NO_LESSON = {"00_x": Lesson(question="Why?", needs=None, minutes=None, exercises=())}


def notebook(codes, *, setup=SETUP, title="# Why?"):
    cells = [nbformat.v4.new_markdown_cell(title), nbformat.v4.new_code_cell(setup)]
    for k, (code, level) in enumerate(zip(codes, LEVELS, strict=False), start=1):
        heading = f"### Exercise {k}: find it (5 minutes, {level})"
        cells += [nbformat.v4.new_markdown_cell(heading), nbformat.v4.new_code_cell(code)]
    return nbformat.v4.new_notebook(cells=cells)


def answers(*values):
    return [f'{n} = {v}\nteach.check("{n}", {n})' for n, v in zip(NAMES, values, strict=False)]


LESSON = read_lesson(notebook(answers("...", "...", "...", "...", "...")).cells)


def submit(path, codes, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook(codes, **options), path)
    return path


# ---- what a lesson says ------------------------------------------------------------------------


def test_a_lesson_knows_its_exercises_their_points_and_checks():
    assert [e.points for e in LESSON.exercises] == [1, 1, 2, 3, 1] and LESSON.points == 8
    first = Exercise(
        number=1,
        goal="find it",
        minutes=5,
        difficulty="easy",
        check=Check(name="one", answer="one"),
    )
    assert LESSON.exercises[0] == first and LESSON.question == "Why?"


def test_facts_are_read_and_headings_in_fenced_code_are_not():
    text = "# How?\n\n**You need** lesson 02.\n\n**It takes** 45 minutes.\n"
    fenced = "```\n### Exercise 1: no (1 minutes, easy)\n```"
    cells = [{"cell_type": "markdown", "source": source} for source in (text, fenced)]
    wanted = Lesson(question="How?", needs="lesson 02.", minutes=45, exercises=())
    assert read_lesson(cells) == wanted


def test_an_exercise_without_a_check_has_none_and_does_not_take_the_next_one():
    cells = [cell for cell in notebook(answers(1, 2)).cells if '"one"' not in cell.source[-20:]]
    one, two = read_lesson(cells).exercises
    assert one.check is None and two.check == Check(name="two", answer="two")


def test_checks_are_found_by_what_they_mean():
    assert checks_in("print(teach.check( 'a', f( 1,2 ) ))") == [Check(name="a", answer="f(1, 2)")]
    assert checks_in("# teach.check('a', 1)\ncheck('a', 1)\nteach.check('a')") == []


# ---- running -----------------------------------------------------------------------------------


def test_a_right_notebook_gets_all_points_whatever_outputs_it_was_saved_with(tmp_path):
    path = submit(tmp_path / "a.ipynb", answers(42, 42, 42, 42, 42))
    before = path.read_bytes()
    result = grade(path, LESSON, student="ann", name="00_x", timeout=120)
    assert (result.state, result.points) == ("ran", 8)
    assert [g.status for g in result.grades] == ["ok"] * 5
    assert path.read_bytes() == before


def test_each_way_to_miss_the_points_is_told_apart(tmp_path):
    codes = [
        'one = 41\nteach.check("one", one)',
        'two = forgotten\nteach.check("two", two)',
        'teach.check("three", 42)',
        "four = 42",
        'five = ...\nteach.check("five", five)',
    ]
    path = submit(tmp_path / "b.ipynb", codes)
    forged = nbformat.read(path, as_version=4)
    for cell in forged.cells[3::2]:
        cell.metadata["tags"] = ["skip-execution"]
        cell.outputs = [nbformat.v4.new_output("execute_result", {"text/plain": "ok"})]
    nbformat.write(forged, path)
    result = grade(path, LESSON, student="bob", name="00_x", timeout=120)
    assert [g.status for g in result.grades] == [
        "not yet", "error", "check edited", "check missing", "not attempted yet",
    ]  # fmt: skip
    assert result.points == 0 and result.state == "crashed"
    assert result.grades[0].message == "it is 42"
    assert result.grades[1].message == "NameError: name 'forgotten' is not defined"
    assert result.message.startswith("cell 5: NameError")
    assert result.grades[2].message == "it checks '42', the lesson 'three'"


@pytest.mark.parametrize(
    ("code", "timeout", "state"),
    [
        ("import time; time.sleep(3600)", 4, "timed out"),
        ("import os; os._exit(3)", 120, "kernel died"),
    ],
)
def test_a_notebook_that_never_ends_or_ends_its_kernel(tmp_path, code, timeout, state):
    path = submit(tmp_path / "c.ipynb", answers(42), setup=code)
    result = grade(path, LESSON, student="cy", name="00_x", timeout=timeout)
    assert result.state == state and result.message
    assert [g.status for g in result.grades] == ["not run", *["check missing"] * 4]


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{}", b'{"cells": 1, "nbformat": 4}'])
def test_what_is_no_notebook_is_unreadable_and_not_run(tmp_path, content):
    path = tmp_path / "d.ipynb"
    path.write_bytes(content)
    result = grade(path, LESSON, student="di", name="00_x")
    assert result.state == "unreadable" and "is no notebook" in result.message
    assert [g.status for g in result.grades] == ["not run"] * 5


def test_mistakes_of_the_teacher_are_errors(tmp_path, monkeypatch):
    path = submit(tmp_path / "a.ipynb", answers(42))
    with pytest.raises(ValueError, match="timeout must be greater than 0 s, got 0"):
        grade(path, LESSON, student="a", name="00_x", timeout=0)
    broken = read_lesson(notebook(["pass"]).cells)
    with pytest.raises(ValueError, match="00_x: an exercise has no teach.check"):
        grade(path, broken, student="a", name="00_x")
    monkeypatch.setitem(__import__("sys").modules, "nbformat", None)
    with pytest.raises(ValueError, match="needs nbformat, which comes with JupyterLab: pip"):
        grading.read_notebook(path)


# ---- whose, and of what ------------------------------------------------------------------------


def test_lesson_and_student_are_found_however_they_were_handed_in(tmp_path, capsys):
    badge = 'teach.runtime_badge("00_x")'
    for name in (
        "in/ann/00_x.ipynb", "in/ben/00_x/00_x.ipynb", "in/cat_00_x.ipynb", "in/00_x (dan).ipynb",
        "in/eve/my work.ipynb", "in/.ipynb_checkpoints/00_x-checkpoint.ipynb",
    ):  # fmt: skip
        submit(tmp_path / name, [], setup=badge)
    submit(tmp_path / "in/fay/other.ipynb", [], setup="pass")
    found = find_submissions([tmp_path / "in"], NO_LESSON)
    assert sorted(one.student for one in found) == ["ann", "ben", "cat", "dan", "eve"]
    assert {one.lesson for one in found} == {"00_x"}
    assert "other.ipynb is of none of the lessons 00_x" in capsys.readouterr().err
    (single,) = find_submissions([tmp_path / "in/ben/00_x/00_x.ipynb"], NO_LESSON)
    assert single.student == "ben"


def test_two_notebooks_of_one_student_are_named(tmp_path, capsys):
    for name in ("ann/00_x.ipynb", "ann/again/00_x.ipynb"):
        submit(tmp_path / name, [])
    assert len(find_submissions([tmp_path], NO_LESSON)) == 2
    assert "ann has two notebooks of 00_x" in capsys.readouterr().err


def test_nothing_to_grade_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="no submitted notebooks in"):
        find_submissions([tmp_path], NO_LESSON)
    with pytest.raises(FileNotFoundError, match="no file or folder"):
        find_submissions([tmp_path / "nosuch"], NO_LESSON)
    with pytest.raises(FileNotFoundError, match="--lessons names the folder"):
        load_lessons(tmp_path)


# ---- what is said ------------------------------------------------------------------------------


def graded(student, *statuses):
    grades = [
        Grade(exercise=exercise, status=status, message="=1+1")
        for exercise, status in zip(LESSON.exercises, statuses, strict=False)
    ]
    return Submission(
        student=student,
        lesson="00_x",
        path="x.ipynb",
        state="ran",
        message="",
        grades=tuple(grades),
        seconds=1.0,
    )


def test_csv_has_a_line_per_student_and_exercise_and_no_formulas():
    text = csv_text([graded("ann", "ok", "not yet"), graded("@ben", "ok", "ok")])
    rows = list(csv.DictReader(text.splitlines()))
    assert [(r["student"], r["exercise"], r["status"], r["points"]) for r in rows] == [
        ("ann", "one", "ok", "1"),
        ("ann", "two", "not yet", "0"),
        ("'@ben", "one", "ok", "1"),
        ("'@ben", "two", "ok", "1"),
    ]
    assert {row["message"] for row in rows} == {"'=1+1"}


@pytest.fixture
def fake_runs(monkeypatch):
    def fake(path, lesson, *, student, name, timeout):
        assert timeout == 9
        return graded(student, *["ok" if student == "ann" else "not yet"] * 5)

    monkeypatch.setattr(grading, "grade", fake)


def test_grade_prints_a_table_and_writes_the_csv(tmp_path, fake_runs, capsys):
    submit(tmp_path / "lessons/00_x.ipynb", answers(*["..."] * 5))
    for student in ("ben", "ann"):
        submit(tmp_path / f"in/{student}/00_x.ipynb", answers(1))
    words = ["grade", str(tmp_path / "in"), "--lessons", str(tmp_path / "lessons")]
    words += ["--timeout", "9", "--csv", str(tmp_path / "points.csv")]
    assert cli.main(words) == 0
    out, err = capsys.readouterr()
    title, header, ann, ben = out.splitlines()
    assert title == "00_x: Why?" and header.split()[:4] == ["student", "notebook", "one", "(1)"]
    assert ann.startswith("ann") and ann.endswith("8 of 8")
    assert ben.startswith("ben") and ben.endswith("0 of 8")
    assert "running 2 notebooks of others, with your rights: use a sandbox" in err
    assert len((tmp_path / "points.csv").read_text().splitlines()) == 11
    assert cli.main([*words, "--json"]) == 0
    assert [entry["points"] for entry in json.loads(capsys.readouterr().out)] == [8, 0]


def test_grade_refuses_a_timeout_of_nothing(capsys):
    with pytest.raises(SystemExit):
        cli.main(["grade", "x.ipynb", "--timeout", "0"])
    assert "--timeout must be greater than 0, got 0" in capsys.readouterr().err
