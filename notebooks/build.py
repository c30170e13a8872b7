"""Build the student and the solution notebooks from their sources, and run them.

    python notebooks/build.py            build and execute everything
    python notebooks/build.py NAME ...   only these, e.g. 00_start_here
    python notebooks/build.py --check    fail if a built notebook is not what its source gives

A source (src/NAME.py) is a script of cells in jupytext's percent format. In a code cell

    ### BEGIN SOLUTION
    #: answer = ...
    answer = 42
    ### END SOLUTION

the student gets the lines after ``#:``, the solution notebook the others. Outputs are kept, so
that a notebook reads well without a kernel; live widgets, progress bars and their state are not.
"""

import argparse
import json
import os
import re
import sys
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

HERE = Path(__file__).resolve().parent
MAX_BYTES = 300_000
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
REGION = re.compile(
    r"^[ \t]*### BEGIN SOLUTION\n(.*?)^[ \t]*### END SOLUTION[ \t]*(?:\n|\Z)", re.DOTALL | re.M
)
STUB = re.compile(r"^([ \t]*)#: ?(.*)$")


def sources() -> list[Path]:
    """All sources, sorted."""
    return sorted((HERE / "src").glob("[0-9]*.py"))


def targets(source: Path) -> dict[bool, Path]:
    """Where the student (False) and the solution (True) notebook of a source lie."""
    name = f"{source.stem}.ipynb"
    return {False: HERE / name, True: HERE / "solutions" / name}


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
        stubs, answers = [], []
        for line in region[1].splitlines():
            stub = STUB.match(line)
            if stub:
                stubs.append(stub[1] + stub[2])
            else:
                answers.append(line)
        if not stubs:
            raise ValueError(f"a solution needs a stub, lines that begin with '#:':\n{region[0]}")
        return "\n".join(answers if solution else stubs) + "\n"

    result = REGION.sub(choose, code + "\n").rstrip("\n")
    if "# BEGIN SOLUTION" in result or "# END SOLUTION" in result:
        raise ValueError(f"unbalanced BEGIN SOLUTION / END SOLUTION:\n{code}")
    return result


def execute(notebook: NotebookNode, *, folder: Path, timeout: int = 300) -> float:
    """Run a notebook in place in `folder`; return the seconds, raise at the first error."""
    started = time.perf_counter()
    NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=False,
    ).execute()
    return time.perf_counter() - started


def clean(notebook: NotebookNode) -> None:
    """Keep only outputs that can be read without a kernel; refuse warnings."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # time stamps would change with every build
        if cell.cell_type != "code":
            continue
        kept = []
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                if "Warning" in output.text:
                    raise ValueError(f"{cell.id} warns:\n{output.text}")
                continue
            data = output.get("data", {})
            live = data.pop(WIDGET, None) is not None
            # a widget without a kernel is only its repr; beside it there may be a picture
            if not live or "image/png" in data:
                kept.append(output)
        cell.outputs = kept
    notebook.metadata = nbformat.from_dict(METADATA)


def build(source: Path) -> None:
    """Build and execute both notebooks of a source; record the student notebook's runtime."""
    for solution, target in targets(source).items():
        notebook = convert(source.read_text(encoding="utf-8"), solution=solution)
        seconds = execute(notebook, folder=target.parent)
        clean(notebook)
        text = nbformat.writes(notebook) + "\n"
        if len(text.encode()) > MAX_BYTES:
            raise ValueError(f"{target.name} has {len(text.encode())} bytes, at most {MAX_BYTES}")
        target.parent.mkdir(exist_ok=True)
        target.write_text(text, encoding="utf-8")
        print(f"{target.relative_to(HERE)}: {seconds:.0f} s, {len(text.encode()) / 1000:.0f} kB")
        if not solution:
            _record(source.stem, seconds)


def _record(name: str, seconds: float) -> None:
    file = HERE / "runtimes.json"
    runtimes = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    runtimes[name] = {"seconds": round(seconds), "cores": os.cpu_count()}
    file.write_text(json.dumps(runtimes, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def problems(source: Path) -> list[str]:
    """What is wrong with the built notebooks of a source: stale, not executed, errors, too big."""
    found = []
    for solution, target in targets(source).items():
        name = str(target.relative_to(HERE))
        if not target.is_file():
            found.append(f"{name}: not built")
            continue
        wanted = convert(source.read_text(encoding="utf-8"), solution=solution)
        built = nbformat.read(target, as_version=4)
        if _skeleton(built) != _skeleton(wanted):
            found.append(f"{name}: differs from its source")
        code = [cell for cell in built.cells if cell.cell_type == "code" and cell.source.strip()]
        if any(cell.execution_count is None for cell in code):
            found.append(f"{name}: not executed")
        if any(output.output_type == "error" for cell in code for output in cell.outputs):
            found.append(f"{name}: holds an error")
        if target.stat().st_size > MAX_BYTES:
            found.append(f"{name}: {target.stat().st_size} bytes, at most {MAX_BYTES}")
    return found


def _skeleton(notebook: NotebookNode) -> object:
    """All of a notebook that follows from its source."""
    cells = [(c.id, c.cell_type, c.source, c.metadata.get("tags", [])) for c in notebook.cells]
    return cells, notebook.metadata


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="e.g. 00_start_here")
    parser.add_argument("--check", action="store_true", help="compare, build nothing")
    options = parser.parse_args(arguments)
    chosen = [s for s in sources() if not options.names or s.stem in options.names]
    unknown = set(options.names) - {source.stem for source in chosen}
    if unknown or not chosen:
        parser.error(f"no source for {sorted(unknown)}: there are {[s.stem for s in sources()]}")
    if not options.check:
        for source in chosen:
            build(source)
        return 0
    found = [problem for source in chosen for problem in problems(source)]
    for problem in found:
        print(f"{problem}: run make notebooks", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
