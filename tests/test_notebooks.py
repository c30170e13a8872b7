"""Notebooks: built from their sources, small, and they run."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

from fpkit.extractor import load_extractor

FOLDER = Path(__file__).parent.parent / "notebooks"
_spec = importlib.util.spec_from_file_location("notebooks_build", FOLDER / "build.py")
build = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(build)

SOURCES = build.sources()
BUILT = [target for source in SOURCES for target in build.targets(source).values()]

SMALL = """\
# %% [markdown]
# # Why?

# %%
### BEGIN SOLUTION
#: answer = ...
answer = 42
### END SOLUTION
print(answer)
"""


def test_there_is_a_first_notebook():
    assert "00_start_here" in [source.stem for source in SOURCES]


def test_student_gets_the_stub_and_the_solution_the_answer():
    student, solution = (build.convert(SMALL, solution=s) for s in (False, True))
    assert student.cells[1].source == "answer = ...\nprint(answer)"
    assert solution.cells[1].source == "answer = 42\nprint(answer)"
    assert student.metadata.kernelspec.name == "python3"


def test_indented_stubs_keep_their_indentation():
    code = "def f():\n    ### BEGIN SOLUTION\n    #: return ...\n    return 1\n    ### END SOLUTION"
    assert build.split(code, solution=False) == "def f():\n    return ..."
    assert build.split(code, solution=True) == "def f():\n    return 1"


@pytest.mark.parametrize(
    ("code", "match"),
    [
        ("### BEGIN SOLUTION\nx = 1\n### END SOLUTION", "needs a stub"),
        ("### BEGIN SOLUTION\n#: x = ...\nx = 1", "unbalanced"),
    ],
)
def test_broken_solution_regions_are_refused(code, match):
    with pytest.raises(ValueError, match=match):
        build.split(code, solution=False)


def test_clean_drops_live_widgets_but_keeps_the_picture_beside_them():
    png = {"image/png": "x", "text/plain": "p"}
    outputs = [
        nbformat.v4.new_output("display_data", {build.WIDGET: {}, "text/plain": "w"}),
        nbformat.v4.new_output("display_data", {build.WIDGET: {}} | png),
        nbformat.v4.new_output("stream", name="stderr", text="50%"),
        nbformat.v4.new_output("stream", name="stdout", text="kept"),
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(outputs=outputs)])
    build.clean(notebook)
    kept = notebook.cells[0].outputs
    assert [output.output_type for output in kept] == ["display_data", "stream"]
    assert kept[0].data == png
    notebook.cells[0].outputs = [
        nbformat.v4.new_output("stream", name="stderr", text="a.py:1: UserWarning: no")
    ]
    with pytest.raises(ValueError, match="warns"):
        build.clean(notebook)


def test_check_notices_stale_missing_unexecuted_and_failed_notebooks(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "HERE", tmp_path)
    source = tmp_path / "src" / "00_small.py"
    source.parent.mkdir()
    source.write_text(SMALL)
    assert [p.split(": ")[1] for p in build.problems(source)] == ["not built"] * 2
    for solution, target in build.targets(source).items():
        target.parent.mkdir(exist_ok=True)
        notebook = build.convert(SMALL, solution=solution)
        nbformat.write(notebook, target)
    assert [p.split(": ")[1] for p in build.problems(source)] == ["not executed"] * 2
    for target in build.targets(source).values():
        notebook = nbformat.read(target, as_version=4)
        notebook.cells[1].execution_count = 1
        nbformat.write(notebook, target)
    assert build.problems(source) == [] and build.main(["--check"]) == 0
    error = nbformat.v4.new_output("error", ename="E", evalue="", traceback=[])
    notebook.cells[1].outputs = [error]
    nbformat.write(notebook, target)
    assert [p.split(": ")[1] for p in build.problems(source)] == ["holds an error"]
    source.write_text(SMALL.replace("Why", "How"))
    assert "00_small.ipynb: differs from its source" in build.problems(source)
    assert build.main(["--check"]) == 1


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_built_notebooks_are_fresh_executed_and_small(source):
    assert build.problems(source) == []


@pytest.mark.parametrize("target", BUILT, ids=lambda t: str(t.relative_to(FOLDER)))
def test_built_notebooks_read_well_without_a_kernel(target):
    notebook = nbformat.read(target, as_version=4)
    outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
    assert sum("image/png" in o.get("data", {}) for o in outputs) >= 3
    assert not any(build.WIDGET in o.get("data", {}) for o in outputs)
    assert notebook.cells[0].source.splitlines()[0].endswith("?")
    assert "/home/" not in target.read_text() and "/root/" not in target.read_text()


def test_outputs_of_00_are_those_of_the_shipped_extractor():
    wanted = f"weights {load_extractor().hash[:12]}"
    for target in build.targets(FOLDER / "src" / "00_start_here.py").values():
        assert wanted in target.read_text(), "the weights changed: run make notebooks"


@pytest.mark.timeout(600)
@pytest.mark.parametrize("target", BUILT, ids=lambda t: str(t.relative_to(FOLDER)))
def test_notebooks_run_from_top_to_bottom(target):
    notebook = nbformat.read(target, as_version=4)
    build.execute(notebook, folder=target.parent)
    verdicts = [
        output.data["text/plain"]
        for cell in notebook.cells
        if cell.cell_type == "code" and "teach.check(" in cell.source
        for output in cell.outputs
        if "text/plain" in output.get("data", {})
    ]
    assert len(verdicts) >= 2
    wanted = "ok" if target.parent.name == "solutions" else "not attempted yet"
    assert verdicts == [wanted] * len(verdicts)
