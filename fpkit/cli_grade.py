"""The verb of the command line for teachers: ``grade``."""

from __future__ import annotations

import argparse
import csv
import io
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fpkit.artefacts import read_text
from fpkit.assets import write_text_atomic
from fpkit.cli_io import Verbs, add_verb, note, plural, print_json, print_table

if TYPE_CHECKING:
    from fpkit.grading import Submission
    from fpkit.lesson import Lesson

COLUMNS = (
    "student", "lesson", "notebook", "exercise", "difficulty", "status", "points", "of", "message",
    "file",
)  # fmt: skip
_BADGE = re.compile(r"""runtime_badge\(\\?["']([^"'\\]+)""")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def add_to(verbs: Verbs) -> None:
    """Declare ``grade``."""
    parser = add_verb(
        verbs,
        "grade",
        grade,
        "run submitted notebooks and give points for their exercises",
        example="fpkit grade submissions/ --csv points.csv",
    )
    parser.description += (
        " It executes what others wrote, with your rights: do it in a sandbox, such as a"
        " container or an account that owns nothing else."
    )
    add = parser.add_argument
    what = "notebooks, or folders of them: FOLDER/STUDENT/LESSON.ipynb, FOLDER/STUDENT_LESSON.ipynb"
    add("inputs", nargs="+", metavar="NOTEBOOK_OR_FOLDER", help=what)
    add("--csv", metavar="FILE", help="write a line per student and exercise there")
    add("--timeout", type=float, default=600, metavar="S", help="per notebook (600 seconds)")
    add("--lessons", metavar="DIR", help="the lessons as they were handed out (fpkit's own)")
    add("--json", action="store_true", help="print JSON, for machines")

    def check(arguments: argparse.Namespace) -> None:
        if not arguments.timeout > 0:
            parser.error(f"--timeout must be greater than 0, got {arguments.timeout:g}")

    parser.set_defaults(check=check)


def grade(arguments: argparse.Namespace) -> int:
    """Grade submissions one after the other; the CSV file is complete after each."""
    from fpkit import grading

    lessons = load_lessons(arguments.lessons)
    found = find_submissions(arguments.inputs, lessons)
    note(f"running {plural(len(found), 'notebook')} of others, with your rights: use a sandbox")
    done: list[Submission] = []
    for handed_in in found:
        submission = grading.grade(
            handed_in.path,
            lessons[handed_in.lesson],
            student=handed_in.student,
            name=handed_in.lesson,
            timeout=arguments.timeout,
        )
        done.append(submission)
        trouble = f", {submission.state}: {submission.message}" if submission.message else ""
        note(
            f"{len(done)} of {len(found)}, {submission.student}, {submission.lesson}: "
            f"{submission.points} of {lessons[submission.lesson].points} points, "
            f"{submission.seconds:.0f} s{trouble}"
        )
        if arguments.csv:
            write_text_atomic(arguments.csv, csv_text(done))
    if arguments.json:
        print_json([_as_json(submission) for submission in done])
    else:
        _print(done, lessons)
    return 0


# ---- what to grade -----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class HandedIn:
    """A submitted notebook, not yet run."""

    student: str
    lesson: str
    path: Path


def load_lessons(folder: str | Path | None = None) -> dict[str, Lesson]:
    """The lessons of a folder of student notebooks, by name; default: those of this checkout.

    Raises
    ------
    FileNotFoundError
        If there are none.
    """
    from fpkit.grading import read_notebook
    from fpkit.lesson import read_lesson

    place = Path(folder) if folder else Path(__file__).resolve().parent.parent / "notebooks"
    paths = sorted(place.glob("*.ipynb"))
    if not paths:
        raise FileNotFoundError(
            f"no lessons (*.ipynb) in {place}: --lessons names the folder that was handed out"
        )
    return {path.stem: read_lesson(read_notebook(path).cells) for path in paths}


def find_submissions(inputs: Sequence[str | Path], lessons: dict[str, Lesson]) -> list[HandedIn]:
    """Notebooks in files and folders, with lesson and student.

    The lesson is named by the file, by a folder around it, or by the badge inside. The student is
    the first folder inside the one given, else what the file's name has besides the lesson, else
    the folder around it. Notebooks of no lesson are named in a note and left out.

    Raises
    ------
    FileNotFoundError
        If an input is missing.
    ValueError
        If nothing is left.
    """
    found = []
    for given in map(Path, inputs):
        if not given.exists():
            raise FileNotFoundError(f"no file or folder {given}")
        for path in _notebooks(given) if given.is_dir() else [given]:
            lesson = _lesson_of(path, lessons)
            if lesson is None:
                note(f"left out: {path} is of none of the lessons {', '.join(lessons)}")
                continue
            student = _student_of(path, lesson, given)
            found.append(HandedIn(student=student, lesson=lesson, path=path))
    if not found:
        raise ValueError(f"no submitted notebooks in {', '.join(map(str, inputs))}")
    seen: dict[tuple[str, str], Path] = {}
    for one in found:
        first = seen.setdefault((one.student, one.lesson), one.path)
        if first != one.path:
            note(f"{one.student} has two notebooks of {one.lesson}: {first} and {one.path}")
    return found


def _notebooks(folder: Path) -> list[Path]:
    paths = sorted(folder.rglob("*.ipynb"))
    root, found = folder.resolve(), []
    for path in paths:
        inside = path.relative_to(folder)
        if any(part.startswith(".") for part in inside.parts):
            continue
        if Path(os.path.realpath(path)) != root / inside:
            note(f"left out: {path} is a link: a submission must be a file of its own")
        else:
            found.append(path)
    return found


def _lesson_of(path: Path, lessons: dict[str, Lesson]) -> str | None:
    from fpkit.grading import NOTEBOOK_BYTES

    named = [name for name in lessons if name in path.stem]
    named += [part for part in reversed(path.parts[:-1]) if part in lessons]
    if not named:
        with suppress(OSError, ValueError):  # is told when it is to be graded
            named = _BADGE.findall(read_text(path, most=NOTEBOOK_BYTES))
    return next((name for name in named if name in lessons), None)


def _student_of(path: Path, lesson: str, given: Path) -> str:
    inside = path.relative_to(given).parts[:-1] if given.is_dir() else ()
    if inside and inside[0] != lesson:
        return inside[0]
    rest = path.stem.replace(lesson, "").strip(" _-.()")
    folders = [part for part in path.resolve().parent.parts[1:] if part != lesson]
    return rest or (folders[-1] if folders else path.stem)


# ---- what is said ------------------------------------------------------------------------------


def _print(done: Sequence[Submission], lessons: dict[str, Lesson]) -> None:
    """A table of students and exercises for each lesson."""
    for k, (name, lesson) in enumerate((n, x) for n, x in lessons.items() if _of(done, n)):
        print(f"{'' if k == 0 else chr(10)}{name}: {lesson.question}")
        titles = [f"{e.check.name} ({e.points})" for e in lesson.exercises if e.check]
        rows = [
            [s.student, s.state, *(g.status for g in s.grades), f"{s.points} of {lesson.points}"]
            for s in _of(done, name)
        ]
        print_table(["student", "notebook", *titles, "points"], rows)


def _of(done: Sequence[Submission], lesson: str) -> list[Submission]:
    return sorted((s for s in done if s.lesson == lesson), key=lambda s: (s.student, str(s.path)))


def csv_text(done: Sequence[Submission]) -> str:
    """A line per student and exercise; what a spreadsheet would take for a formula is quoted."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for entry in map(_as_json, done):
        for line in entry["exercises"]:
            row = entry | line
            writer.writerow([_plain(row[column]) for column in COLUMNS])
    return out.getvalue()


def _plain(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _as_json(submission: Submission) -> dict[str, Any]:
    return {
        "student": submission.student,
        "lesson": submission.lesson,
        "file": str(submission.path),
        "notebook": submission.state,
        "error": submission.message,
        "points": submission.points,
        "seconds": round(submission.seconds, 1),
        "exercises": [
            {
                "exercise": grade.exercise.check.name if grade.exercise.check else None,
                "difficulty": grade.exercise.difficulty,
                "status": grade.status,
                "points": grade.points,
                "of": grade.exercise.points,
                "message": grade.message,
            }
            for grade in submission.grades
        ],
    }
