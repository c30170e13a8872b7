"""The syllabus: a table of all lessons in README.md, written by the build."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from course import runtimes
from course.sources import Source, find_sources
from fpkit.assets import write_text_atomic
from fpkit.lesson import Lesson, read_lesson

BEGIN, END = "<!-- syllabus: written by build.py -->", "<!-- end of the syllabus -->"
MISSING = "not measured"
COLUMNS = ("lesson", "minutes", "you need", "exercises", "quick, CPU", "full, CPU", "full, GPU")


def syllabus(root: Path) -> str:
    """The table of a course, in Markdown."""
    measured = runtimes.load(root)
    rows = [COLUMNS, ("---",) * len(COLUMNS)]
    rows += [_row(source, measured.get(source.name, {})) for source in find_sources(root)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(source: Source, measured: Mapping[str, Any]) -> tuple[str, ...]:
    lesson = read_lesson(source.cells)
    number = source.name.split("_")[0]
    full = measured.get("full", {})
    return (
        f"[{number} {lesson.question or source.name}]({source.name}.ipynb)",
        str(lesson.minutes or "?"),
        _first_sentence(lesson.needs or "?"),
        _exercises(lesson),
        _time(measured.get("quick")),
        _time(full.get("cpu")),
        _time(full.get("cuda")),
    )


def _first_sentence(text: str) -> str:
    return text.split(". ")[0].split("; ")[0].rstrip(".").replace("|", "\\|")


def _exercises(lesson: Lesson) -> str:
    minutes = sum(exercise.minutes for exercise in lesson.exercises)
    return f"{len(lesson.exercises)} ({minutes} min, {lesson.points} points)"


def _time(entry: Mapping[str, Any] | None) -> str:
    if not entry:
        return MISSING
    hardware = entry.get("hardware") or f"{entry['cores']} cores"
    return f"{entry['seconds']} s ({hardware})"


def write(root: Path) -> None:
    """Put the table into README.md, between its markers."""
    page = root / "README.md"
    before, _, after = _parts(page.read_text(encoding="utf-8"))
    write_text_atomic(page, before + "\n\n" + syllabus(root) + "\n\n" + after)


def problems(root: Path) -> Iterator[str]:
    """Whether the table in README.md is what the sources and runtimes.json give."""
    _, table, _ = _parts((root / "README.md").read_text(encoding="utf-8"))
    if table.strip() != syllabus(root):
        yield "README.md: its syllabus differs from the sources or from runtimes.json"


def _parts(page: str) -> tuple[str, str, str]:
    """README.md up to the table, the table, and from there on; markers not in the table."""
    before, begin, rest = page.partition(BEGIN)
    table, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must have the lines {BEGIN} and {END}")
    return before + begin, table, end + after
