"""Notebooks: sources in form, built from them, small, and the first one runs.

All others are run by ``build.py --run``, see .ci/run.
"""

import importlib.util
import json
import shlex
import sys
import threading
from pathlib import Path

import nbformat
import pytest

from fpkit.extractor import load_extractor

FOLDER = Path(__file__).parent.parent / "notebooks"
sys.path.append(str(FOLDER))
from course import assignments, execution, runtimes, syllabus  # noqa: E402
from course.form import form_problems  # noqa: E402
from course.sources import Source, convert, find_sources, split  # noqa: E402

_spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = find_sources(FOLDER)
BUILT = sorted([*FOLDER.glob("*.ipynb"), *FOLDER.glob("solutions/*.ipynb")])

EXERCISE = """\
# %% [markdown]
# ### Exercise {k}: find it ({minutes} minutes, {level})
#
# <details><summary>Hint</summary>
#
# Look.
# </details>

# %%
### BEGIN SOLUTION
#: {stub}
{answer}
### END SOLUTION
teach.check("{check}", {expression})

# %% [markdown]
# <details><summary>Solution</summary>
#
# There.
# </details>

"""
ONE = EXERCISE.format(
    k=1,
    minutes=5,
    level="easy",
    stub="peak = ...",
    answer="peak = 0.25",
    check="peak-frequency",
    expression="peak",
)
TWO = EXERCISE.format(
    k=2,
    minutes=10,
    level="hard",
    stub="closest = ...",
    answer="closest = max",
    check="closest-fingerprint",
    expression="closest",
)
ENDING = """\
# %% [markdown]
# ## What can go wrong
#
# ## Recap
#
# ## Where to go next
"""
LESSON = (
    """\
# %% [markdown]
# # Why this?
#
# It is asked.

# %%
from fpkit import teach

budget = teach.budget()
teach.runtime_badge("00_small")

# %% [markdown]
# **You will be able to**
# - *see* this,
# - *say* that,
# - *do* both.
#
# **You need** Python; nothing else. No GPU.
#
# **It takes** 20 minutes.
#
# | word | meaning |
# |---|---|
# | a | b |

# %%
count = budget.choose(quick=1, full=2)

"""
    + ONE
    + TWO
    + ENDING
)


@pytest.fixture
def course(tmp_path):
    """A folder like notebooks/ with one lesson, nothing built."""
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "00_small.py").write_text(LESSON)
    (tmp_path / "README.md").write_text(f"before\n{syllabus.BEGIN}\n{syllabus.END}\nafter\n")
    return tmp_path


@pytest.fixture
def runs(monkeypatch):
    """Notebooks 'run' at once and show what they should; the environments they were given."""
    given = []

    def fake(notebook, *, folder, timeout, environment):
        given.append(environment | {"thread": threading.current_thread().name, "timeout": timeout})
        for k, cell in enumerate(c for c in notebook.cells if c.cell_type == "code"):
            verdict = "not attempted yet" if "= ..." in cell.source else "ok"
            result = {"text/plain": verdict}
            cell.execution_count = k
            cell.outputs = [nbformat.v4.new_output("execute_result", result, execution_count=k)]

    monkeypatch.setattr(execution, "execute", fake)
    return given


def edit(course, old, new):
    file = course / "src" / "00_small.py"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


# ---- sources -----------------------------------------------------------------------------------


def test_student_gets_the_stub_and_the_solution_the_answer():
    student, solution = (convert(LESSON, solution=s) for s in (False, True))
    check = 'teach.check("peak-frequency", peak)'
    assert student.cells[5].source == f"peak = ...\n{check}"
    assert solution.cells[5].source == f"peak = 0.25\n{check}"
    assert student.metadata.kernelspec.name == "python3"


def test_indented_stubs_keep_their_indentation():
    code = "def f():\n    ### BEGIN SOLUTION\n    #: return ...\n    return 1\n    ### END SOLUTION"
    assert split(code, solution=False) == "def f():\n    return ..."
    assert split(code, solution=True) == "def f():\n    return 1"


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "needs a stub"),
        ("### BEGIN SOLUTION\n#: x = ...\nx = 1", "unbalanced"),
    ],
)
def test_broken_solution_regions_are_refused(code, match):
    with pytest.raises(ValueError, match=match):
        split(code, solution=False)


# ---- form --------------------------------------------------------------------------------------


def test_a_lesson_in_form_has_no_problems(course):
    source = Source(course / "src" / "00_small.py")
    assert form_problems(source) == []
    edit(course, "# ### Exercise 2", "# ## 2. A part\n#\n# ### Exercise 2")
    assert form_problems(Source(source.path)) == []


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("# # Why this?", "# # Because", "must be a question and end in '?', got 'Because'"),
        ("# # Why this?", "# Why?", "must begin with the title"),
        ('badge("00_small")', 'badge("01_big")', 'must be teach.runtime_badge("00_small")'),
        ("from fpkit import teach\n", "import os\n" * 6, "setup has 7 lines, at most 6"),
        ("**You need** Python; nothing else. No GPU.", "Python", "no line '**You need** ...'"),
        ("nothing else. No GPU.", "nothing\n# else.", "'**You need** ...' must be one line"),
        ("**It takes** 20 minutes.", "", "no line '**It takes** N minutes.'"),
        ("**It takes** 20 minutes.", "**It takes** an hour.", "no line '**It takes** N minutes.'"),
        ("20 minutes", "15 minutes", "exercises take 15 minutes, the whole lesson only 15"),
        ("# | word | meaning |", "# word, meaning", "in this order"),
        ("budget.choose(quick=1, full=2)", "1", "makes a budget that no cell uses"),
        ("# - *say* that,\n", "", "lists 2 things, expected 3 or 4"),
        ("*say* that", "**say** that", "no verb in *italics*: '**say** that,'"),
        (TWO, "", "1 exercises, expected 2 to 4"),
        (TWO, TWO * 4, "5 exercises, expected 2 to 4"),
        (TWO, TWO * 2, "'closest-fingerprint' is checked 2 times"),
        ("Exercise 2: find", "Exercise 3: find", "must be '### Exercise 2: ..."),
        ("(5 minutes, easy)", "(5 minutes, simple)", "exercise 1: the heading must be"),
        ("(5 minutes, easy)", "(easy)", "exercise 1: the heading must be"),
        ('teach.check("peak-frequency", peak)', "peak", "exercise 1: 0 teach.check, expected 1"),
        ('"peak-frequency"', '"nosuch"', "no exercise 'nosuch' in fpkit/checks_*.py"),
        ('frequency", peak)\n', 'frequency", peak)\n1\n', "must be teach.check(...), got '1'"),
        ("#: peak = ...\n", "", "a solution needs a stub"),
        ("<summary>Hint<", "<summary>Help<", "exercise 1: no <details><summary>Hint</summary>"),
        ("# There.\n# </details>", "# There.", "exercise 1: a <details> is not closed"),
        ("<summary>Solution<", "<summary>Answer<", "exercise 2: no <details><summary>Solution"),
        ("# ## Recap\n", "# ## In short\n", "must end with the sections"),
        ("budget = teach", "!pip install x\nbudget = teach", "cell 1 installs packages"),
        ("budget = teach", "%matplotlib inline\nbudget = teach", "cell 1 has a shell or magic"),
        ("budget = teach", "sys.path.append('.')\nbudget = teach", "cell 1 edits the path"),
        ("peak = 0.25", "peak = = 0.25", "cell 5 is no valid Python"),
        (ENDING, "# %%\n1\n\n" * 40 + ENDING, "51 cells, at most 45"),
        (ENDING, '# %%\nteach.check("a", 1)\n\n' + ENDING, "exercise 2: 2 teach.check, expected 1"),
        ("# It is asked.\n", '\n# %%\nteach.check("a", 1)\n', "1 teach.check stand outside"),
    ],
)  # fmt: skip
def test_each_departure_from_the_form_is_named(course, old, new, message):
    edit(course, old, new)
    found = form_problems(Source(course / "src" / "00_small.py"))
    assert any(message in problem for problem in found), found


# ---- running -----------------------------------------------------------------------------------


def test_clean_drops_live_widgets_but_keeps_the_picture_beside_them():
    png = {"image/png": "x", "text/plain": "p"}
    outputs = [
        nbformat.v4.new_output("display_data", {execution.WIDGET: {}, "text/plain": "w"}),
        nbformat.v4.new_output("display_data", {execution.WIDGET: {}} | png),
        nbformat.v4.new_output("stream", name="stderr", text="50%"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    execution.clean(notebook)
    kept = notebook.cells[0].outputs
    assert [output.output_type for output in kept] == ["display_data", "stream"]
    assert kept[0].data == png
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a.py:1: UserWarning: no")
    ]
    with pytest.raises(ValueError, match="warns"):
        execution.clean(notebook)


def test_run_writes_nothing_and_gives_each_of_several_one_thread(course, runs, capsys):
    before = sorted(course.rglob("*.*"))
    assert build.main(["--run", "--jobs", "2"], root=course) == 0
    assert sorted(course.rglob("*.*")) == before
    assert [(r["FPKIT_BUDGET"], r["OMP_NUM_THREADS"]) for r in runs] == [("quick", "1")] * 2
    assert len({run["thread"] for run in runs} - {"MainThread"}) >= 1
    assert "00_small solution" in capsys.readouterr().out


def test_run_fails_on_a_wrong_verdict_on_an_error_and_on_too_few_exercises(course, runs, capsys):
    edit(course, "#: peak = ...", "#: peak = 0.3")
    assert build.main(["--run"], root=course) == 1
    said = capsys.readouterr().err
    assert "00_small.ipynb: exercise peak-frequency says 'ok', expected 'not attempted yet'" in said
    assert "solutions" not in said
    edit(course, TWO, "")
    assert build.main(["--run"], root=course) == 1
    assert "1 exercises with a check, expected at least 2" in capsys.readouterr().err


def test_a_run_that_raises_is_a_problem_and_the_others_go_on(course, runs, monkeypatch, capsys):
    def fail(notebook, **_):
        raise execution.CellExecutionError("\x1b[31mboom\x1b[0m", "Error", "boom")

    monkeypatch.setattr(execution, "execute", fail)
    assert build.main(["--run"], root=course) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.splitlines() == [
        "00_small.ipynb: boom", f"{Path('solutions') / '00_small.ipynb'}: boom"
    ]  # fmt: skip


def test_a_source_without_a_stub_is_a_problem_of_the_run(course, runs, capsys):
    edit(course, "#: peak = ...\n", "")
    assert build.main(["--run"], root=course) == 1
    assert "00_small.ipynb: a solution needs a stub" in capsys.readouterr().err


def test_full_budget_is_measured_recorded_and_builds_nothing(course, runs, monkeypatch):
    monkeypatch.setattr(runtimes, "_gpu", lambda: "A100")
    assert build.main(["--budget", "full"], root=course) == 0
    assert [run["FPKIT_BUDGET"] for run in runs] == ["full"] and runs[0]["timeout"] > 300
    assert not list(course.glob("*.ipynb"))
    monkeypatch.setattr(runtimes, "_gpu", lambda: None)
    assert build.main(["--budget", "full"], root=course) == 0
    recorded = json.loads((course / "runtimes.json").read_text())["00_small"]["full"]
    assert recorded["cuda"]["hardware"] == "A100" and set(recorded["cpu"]) == {"cores", "seconds"}
    assert "0 s (A100)" in (course / "README.md").read_text()


@pytest.mark.parametrize("words", [["--jobs", "0"], ["--jobs", "2", "--budget", "full"], ["01_no"]])
def test_wrong_usage_of_the_build(course, words):
    with pytest.raises(SystemExit):
        build.main(words, root=course)


# ---- building and checking ---------------------------------------------------------------------


def test_a_build_writes_both_notebooks_the_time_and_the_syllabus(course, runs):
    assert build.main([], root=course) == 0
    assert build.main(["--check"], root=course) == 0
    assert runs[0] == {"FPKIT_BUDGET": "quick", "thread": runs[0]["thread"], "timeout": 300}
    student = nbformat.read(course / "00_small.ipynb", as_version=4)
    entry = json.loads((course / "runtimes.json").read_text())["00_small"]["quick"]
    shown = f"{entry['seconds']} s on {entry['cores']} CPU cores (quick)"
    assert shown in student.cells[1].outputs[0].data["text/plain"]
    assert (course / "README.md").read_text().splitlines() == [
        "before",
        syllabus.BEGIN,
        "",
        "| lesson | minutes | you need | exercises | quick, CPU | full, CPU | full, GPU |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| [00 Why this?](00_small.ipynb) | 20 | Python | 2 (15 min, 4 points) "
        f"| {entry['seconds']} s ({entry['cores']} cores) | not measured | not measured |",
        "",
        syllabus.END,
        "after",
    ]


def test_parallel_builds_record_no_time(course, runs):
    assert build.main(["--jobs", "2"], root=course) == 0
    assert not (course / "runtimes.json").exists() and (course / "00_small.ipynb").exists()


def said_by_check(course, capsys):
    assert build.main(["--check"], root=course) == 1
    return [line.split(":")[1].strip() for line in capsys.readouterr().err.splitlines()]


def test_check_notices_missing_unexecuted_failed_wrong_and_stale_notebooks(course, runs, capsys):
    syllabus.write(course)
    assert said_by_check(course, capsys) == ["not built"] * 2
    build.main([], root=course)
    target = course / "00_small.ipynb"
    good = target.read_text()
    notebook = nbformat.reads(good, as_version=4)
    notebook.cells[5].execution_count = None
    nbformat.write(notebook, target)
    assert said_by_check(course, capsys) == ["not executed"]
    notebook = nbformat.reads(good, as_version=4)
    notebook.cells[5].outputs[0].data["text/plain"] = "ok"
    nbformat.write(notebook, target)
    assert said_by_check(course, capsys)[0].startswith("exercise peak-frequency says 'ok'")
    notebook.cells[5].outputs = [
        nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    ]
    nbformat.write(notebook, target)
    assert said_by_check(course, capsys) == ["holds an error"]
    target.write_text(good)
    edit(course, "Why this?", "How so?")
    said = said_by_check(course, capsys)
    assert said[:2] == ["differs from its source"] * 2 and "its syllabus differs" in said[2]


def test_check_notices_an_exercise_in_two_lessons_and_a_big_notebook(course, runs, capsys):
    (course / "src" / "01_more.py").write_text(LESSON.replace("00_small", "01_more"))
    build.main([], root=course)
    assert build.main(["--check"], root=course) == 1
    assert "'peak-frequency' is in 00_small and 01_more" in capsys.readouterr().err
    target = course / "01_more.ipynb"
    target.write_text(target.read_text() + " " * build.MAX_BYTES)
    assert build.main(["--check", "01_more"], root=course) == 1
    assert "bytes, at most 300000: fewer or smaller pictures" in capsys.readouterr().err


def test_a_readme_without_the_markers_is_an_error(course):
    (course / "README.md").write_text("nothing")
    with pytest.raises(ValueError, match="must have the lines"):
        syllabus.write(course)


# ---- nbgrader ----------------------------------------------------------------------------------


def cleared(code, begin, end):
    """What nbgrader's ClearSolutions and ClearHiddenTests leave of a cell, blank lines apart."""
    kept, inside = [], False
    for line in code.splitlines():
        if begin in line or end in line:
            inside = begin in line
        elif not inside and line.strip():
            kept.append(line)
    return kept


# the cell metadata of nbgrader's schema 3
REQUIRED = {
    "schema_version": int, "grade": bool, "solution": bool, "locked": bool, "grade_id": str,
    "task": bool,
}  # fmt: skip


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_assignments_follow_the_schema_of_nbgrader_and_clear_to_the_stubs(source):
    notebook = assignments.assignment(source)
    nbformat.validate(notebook)
    graded = [cell for cell in notebook.cells if "nbgrader" in cell.metadata]
    for cell in graded:
        data = cell.metadata["nbgrader"]
        assert {key: type(data[key]) for key in REQUIRED} == REQUIRED
        assert set(data) - set(REQUIRED) == ({"points"} if data["grade"] else set())
        assert data["schema_version"] == 3 and data["solution"] != data["locked"]
    ids = [cell.metadata["nbgrader"]["grade_id"] for cell in graded]
    assert len(ids) == len(set(ids)) and all(id.replace("-", "").isalnum() for id in ids)
    tests = [cell for cell in graded if cell.metadata["nbgrader"]["grade"]]
    lesson = build.read_lesson(source.cells)
    assert [cell.metadata["nbgrader"]["points"] for cell in tests] == [
        exercise.points for exercise in lesson.exercises
    ]
    for cell in tests:
        (left,) = cleared(cell.source, "BEGIN HIDDEN TESTS", "END HIDDEN TESTS")
        assert left.startswith("# ") and "assert verdict.status" in cell.source
    stubs = [c for c in source.notebook(solution=False).cells if "teach.check(" in c.source]
    answers = [cell for cell in graded if cell.metadata["nbgrader"]["solution"]]
    for cell, stub in zip(answers, stubs, strict=True):
        left = cleared(cell.source, "BEGIN SOLUTION", "END SOLUTION")
        assert left == [line for line in stub.source.splitlines() if line.strip()]
    assert not any("<summary>Solution" in cell.source for cell in notebook.cells)


@pytest.mark.parametrize(
    "code",
    [
        "a = 1\n### BEGIN SOLUTION\n#: x = ...\nx = 42\n### END SOLUTION\ny = x",
        "@raised\ndef f():\n    ### BEGIN SOLUTION\n    #: return ...\n    z = 40\n"
        "    return z + 1\n    ### END SOLUTION\n\n\ny = f()",
        "def f(\n    a=2,\n):\n    if a:\n        ### BEGIN SOLUTION\n        #: return ...\n"
        "        return 21 * a\n        ### END SOLUTION\n    return 0\ny = f()",
        "### BEGIN SOLUTION\n#: x = ...\nx = 40\n### END SOLUTION\n"
        "### BEGIN SOLUTION\n#: y = ...\ny = x + 2\n### END SOLUTION",
    ],
)
def test_with_its_answer_a_marked_cell_gives_the_answer_and_cleared_the_stub(code):
    def raised(function):
        return lambda: value if (value := function()) is ... else value + 1

    marked = assignments.mark(code)
    names = {"raised": raised}
    exec(marked, names)
    assert names["y"] == 42
    exec("\n".join(cleared(marked, "BEGIN SOLUTION", "END SOLUTION")), names)
    assert names["y"] is ...


def test_two_answers_in_one_function_cannot_be_marked():
    region = "    ### BEGIN SOLUTION\n    #: a = ...\n    a = 1\n    ### END SOLUTION\n"
    with pytest.raises(ValueError, match="two solutions in one statement"):
        assignments.mark(f"def f():\n{region}    b = 1\n{region}    return a + b")


def test_assignments_are_written_and_a_configuration_is_kept(course):
    out = course / "grading"
    assert build.main(["--nbgrader", str(out)], root=course) == 0
    assert (out / "source" / "00_small" / "00_small.ipynb").is_file()
    config = out / "nbgrader_config.py"
    assert "code_stub" in config.read_text()
    config.write_text("# mine")
    build.main(["--nbgrader", str(out)], root=course)
    assert config.read_text() == "# mine"


def test_a_handout_has_stubs_and_hints_but_no_solutions_and_no_outputs(course):
    out = course / "handout"
    assert build.main(["--handout", str(out)], root=course) == 0
    cells = nbformat.read(out / "00_small.ipynb", as_version=4).cells
    text = "\n".join(cell.source for cell in cells)
    assert text.count("= ...") == text.count("<summary>Hint</summary>") == 2
    assert "0.25" not in text and "Solution" not in text and "There." not in text
    assert not any(cell.outputs for cell in cells if cell.cell_type == "code")


# ---- the course itself -------------------------------------------------------------------------


def test_there_is_a_first_notebook_and_none_without_a_source():
    assert "00_start_here" in [source.name for source in SOURCES]
    assert {path.stem for path in BUILT} <= {source.name for source in SOURCES}


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_lessons_are_in_form_and_built_notebooks_fresh_executed_and_small(source):
    assert list(build.check(source)) == []


def test_the_course_agrees_with_itself():
    assert build.check_all([], FOLDER) == []


def test_every_command_of_the_teachers_page_is_one_that_the_build_has():
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    commands = [line for line in text.splitlines() if line.startswith("python notebooks/build.py")]
    assert len(commands) >= 6
    for command in commands:
        build.parser().parse_args(shlex.split(command.split("  #")[0])[2:])


@pytest.mark.parametrize("target", BUILT, ids=lambda t: str(t.relative_to(FOLDER)))
def test_built_notebooks_read_well_without_a_kernel(target):
    notebook = nbformat.read(target, as_version=4)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert not any(execution.WIDGET in o.get("data", {}) for o in outputs)
    text = target.read_text(encoding="utf-8")
    assert not any(place in text for place in ("/home/", "/root/", str(FOLDER.parent)))


def test_outputs_of_00_are_those_of_the_shipped_extractor():
    wanted = f"weights {load_extractor().hash[:12]}"
    for solution in (False, True):
        target = Source(FOLDER / "src" / "00_start_here.py").target(solution=solution)
        assert wanted in target.read_text(), "the weights changed: run make notebooks"


@pytest.mark.timeout(600)
def test_the_first_notebook_runs_from_top_to_bottom():
    source = Source(FOLDER / "src" / "00_start_here.py")
    assert execution.run(source, solution=False).problems == []
