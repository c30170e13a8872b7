"""The form of a lesson: what every source has, checked before anything runs."""

import ast
import re
from collections.abc import Iterator, Sequence
from typing import Any

from course.sources import REGION, Source, convert
from fpkit.checks import exercises
from fpkit.lesson import HEADING, Lesson, checks_in, outside_fences, read_lesson

MAX_CELLS = 45
SETUP_LINES = 6
EXERCISES = (2, 4)
ABILITIES = (3, 4)
ENDINGS = ("What can go wrong", "Recap", "Where to go next")
_FORBIDDEN = {
    r"\bpip3? install\b|\bconda install\b": "installs packages",
    r"^\s*[!%]": "has a shell or magic command",
    r"\bsys\.path\b": "edits the path",
    r"\bwarnings\.(filterwarnings|simplefilter)\b": "hides warnings",
}
_SECTION = re.compile(r"^#{2,3} (.+)$", re.MULTILINE)

Cells = Sequence[Any]


def form_problems(source: Source) -> list[str]:
    """What in a source is not as every lesson has it; empty if it is fine."""
    try:
        convert(source.text, solution=False)
    except ValueError as error:
        return [str(error)]
    cells = source.cells
    lesson = read_lesson(cells)
    return [
        *_title_and_setup(cells, lesson, source.name),
        *_facts(cells, lesson),
        *_exercises(cells, lesson),
        *_endings(cells),
        *_forbidden(cells),
    ]


def _title_and_setup(cells: Cells, lesson: Lesson, name: str) -> Iterator[str]:
    if len(cells) > MAX_CELLS:
        yield f"{len(cells)} cells, at most {MAX_CELLS}: join some, or move text to the next lesson"
    if lesson.question is None or not cells[0]["source"].startswith("# "):
        yield "cell 0 must begin with the title, '# ...?'"
    elif not lesson.question.endswith("?"):
        yield f"the title must be a question and end in '?', got {lesson.question!r}"
    if len(cells) < 2 or cells[1]["cell_type"] != "code":
        yield "cell 1 must be the setup: imports, then the badge"
        return
    lines = [line for line in cells[1]["source"].splitlines() if line.strip()]
    badge = f'teach.runtime_badge("{name}")'
    if lines[-1] != badge:
        yield f"the last line of the setup must be {badge}, got {lines[-1]!r}"
    code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
    if any(re.match(r"budget *=", line) for line in lines) and not re.search(
        r"\bbudget\.", "\n".join(code)
    ):
        yield "the setup makes a budget that no cell uses"
    counted = [line for line in lines if not line.startswith("budget =")]
    if len(counted) > SETUP_LINES:
        yield f"the setup has {len(counted)} lines, at most {SETUP_LINES} besides the budget"


def _facts(cells: Cells, lesson: Lesson) -> Iterator[str]:
    if lesson.needs is None:
        yield "no line '**You need** ...'"
    if lesson.minutes is None:
        yield "no line '**It takes** N minutes.'"
    text = cells[2]["source"] if len(cells) > 2 else ""
    for phrase in ("You need", "It takes"):
        found = re.search(rf"^\*\*{phrase}\*\*.+\n(?!\s*$)", text + "\n\n", re.MULTILINE)
        if found:
            yield f"'**{phrase}** ...' must be one line with an empty line after it"
    order = ["**You will be able to**", "**You need**", "**It takes**", "\n\n|"]
    places = [text.find(part) for part in order]
    if -1 in places or places != sorted(places):
        yield (
            "cell 2 must have, in this order: '**You will be able to**' with a list, "
            "'**You need** ...', '**It takes** N minutes.', and a table of words"
        )
    abilities = re.findall(r"^- (.*)$", text.partition("**You need**")[0], re.MULTILINE)
    if not ABILITIES[0] <= len(abilities) <= ABILITIES[1]:
        yield f"'You will be able to' lists {len(abilities)} things, expected 3 or 4"
    for ability in abilities:
        if not re.search(r"(?<!\*)\*[^*]+\*(?!\*)", ability):
            yield f"no verb in *italics*: {ability!r}"


def _exercises(cells: Cells, lesson: Lesson) -> Iterator[str]:
    sections = list(_exercise_sections(cells))
    if not EXERCISES[0] <= len(sections) <= EXERCISES[1]:
        yield f"{len(sections)} exercises, expected {EXERCISES[0]} to {EXERCISES[1]}"
    for k, (heading, section) in enumerate(sections, start=1):
        where = f"exercise {k}"
        match = HEADING.match(heading)
        if not match or int(match[1]) != k:
            yield (
                f"{where}: the heading must be '### Exercise {k}: ... (N minutes, "
                f"easy|medium|hard)', got {heading!r}"
            )
        for problem in _one_exercise(section):
            yield f"{where}: {problem}"
    loose = sum(len(checks_in(cell["source"])) for cell in cells if cell["cell_type"] == "code")
    inside = sum(len(_checks(section)) for _, section in sections)
    if loose != inside:
        yield f"{loose - inside} teach.check stand outside the sections of exercises"
    names = [exercise.check.name for exercise in lesson.exercises if exercise.check]
    for name in sorted(set(names)):
        if name not in exercises():
            yield f"no exercise {name!r} in fpkit/checks_*.py"
        if names.count(name) > 1:
            yield f"exercise {name!r} is checked {names.count(name)} times"
    total = sum(exercise.minutes for exercise in lesson.exercises)
    if lesson.minutes is not None and total >= lesson.minutes:
        yield f"its exercises take {total} minutes, the whole lesson only {lesson.minutes}"


def _exercise_sections(cells: Cells) -> Iterator[tuple[str, Cells]]:
    """Heading and cells of each exercise, up to the next heading."""
    heading, section = "", []
    for cell in cells:
        if cell["cell_type"] == "markdown":
            for found in _SECTION.finditer(outside_fences(cell["source"])):
                if heading:
                    yield heading, section
                heading, section = (found[0] if "Exercise" in found[1][:8] else ""), []
        section.append(cell)
    if heading:
        yield heading, section


def _one_exercise(section: Cells) -> Iterator[str]:
    text = "\n".join(cell["source"] for cell in section if cell["cell_type"] == "markdown")
    code = [cell["source"] for cell in section if cell["cell_type"] == "code"]
    regions = [source for source in code if REGION.search(source + "\n")]
    if len(regions) != 1:
        yield f"{len(regions)} cells with a stub and a solution, expected 1"
    if len(_checks(section)) != 1:
        yield f"{len(_checks(section))} teach.check, expected 1"
    for source in regions:
        last = source.rstrip().splitlines()[-1]
        if not last.startswith("teach.check("):
            yield f"the last line of its cell must be teach.check(...), got {last!r}"
    for summary in ("Hint", "Solution"):
        if f"<details><summary>{summary}</summary>" not in text:
            yield f"no <details><summary>{summary}</summary>"
    if text.count("<details>") != text.count("</details>"):
        yield "a <details> is not closed"


def _checks(section: Cells) -> list[Any]:
    return [c for cell in section if cell["cell_type"] == "code" for c in checks_in(cell["source"])]


def _endings(cells: Cells) -> Iterator[str]:
    text = "\n".join(cell["source"] for cell in cells if cell["cell_type"] == "markdown")
    found = [title for title in _SECTION.findall(outside_fences(text)) if title in ENDINGS]
    if found != list(ENDINGS):
        yield f"it must end with the sections {', '.join(ENDINGS)}; found {found or 'none'}"


def _forbidden(cells: Cells) -> Iterator[str]:
    for i, cell in enumerate(cells):
        if cell["cell_type"] != "code":
            continue
        for pattern, what in _FORBIDDEN.items():
            if re.search(pattern, cell["source"], re.MULTILINE):
                yield f"cell {i} {what}"
        try:
            ast.parse(cell["source"])
        except SyntaxError as error:
            yield f"cell {i} is no valid Python: {error.msg}"
