"""Build the student and the solution notebooks from their sources, run and check them.

    python notebooks/build.py                   build and execute everything
    python notebooks/build.py NAME ...          only these, e.g. 00_start_here
    python notebooks/build.py --check           is every source in form, every notebook fresh?
    python notebooks/build.py --run --jobs 2    execute everything, write nothing
    python notebooks/build.py --budget full     measure the full budget, build nothing
    python notebooks/build.py --handout DIR     write student notebooks without any solutions
    python notebooks/build.py --nbgrader DIR    write assignments for nbgrader

How a source is written says course/sources.py. Outputs are kept, so that a notebook reads well
without a kernel; live widgets, progress bars and their state are not.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import nbformat
from nbformat import NotebookNode

from course import runtimes, syllabus
from course.assignments import write_assignments, write_handout
from course.execution import Outcome, run, verdict_problems
from course.form import form_problems
from course.sources import Source, find_sources, skeleton
from fpkit.assets import write_text_atomic
from fpkit.lesson import read_lesson
from fpkit.teach import runtime_badge

HERE = Path(__file__).resolve().parent
MAX_BYTES = 300_000


def build(source: Source, *, jobs: int) -> list[str]:
    """Build and execute both notebooks of a source; problems, empty if all is well.

    Runtimes are recorded only of runs that have the machine to themselves (`jobs` is 1).
    """
    return [problem for solution in (False, True) for problem in _build_one(source, solution, jobs)]


def _build_one(source: Source, solution: bool, jobs: int) -> list[str]:
    outcome = _run(source, solution, jobs)
    if not outcome.finished:
        return outcome.problems
    if not solution and jobs == 1:
        runtimes.record(source.root, source.name, outcome.seconds, budget="quick")
    _renew_badge(outcome.notebook, source)
    target = source.target(solution=solution)
    text = nbformat.writes(outcome.notebook) + "\n"
    if len(text.encode()) > MAX_BYTES:
        size = f"{target.name} has {len(text.encode())} bytes, at most {MAX_BYTES}"
        return [*outcome.problems, size]
    write_text_atomic(target, text)
    print(f"   {len(text.encode()) / 1000:.0f} kB in {target.relative_to(source.root)}", flush=True)
    return outcome.problems


def _renew_badge(notebook: NotebookNode, source: Source) -> None:
    """Show the time of the latest run, which the run itself could not know."""
    badge = replace(runtime_badge(source.name, folder=source.root), budget="quick")
    for cell in notebook.cells:
        if cell.cell_type == "code" and "teach.runtime_badge(" in cell.source:
            for output in cell.outputs:
                output.data = {"text/html": badge._repr_html_(), "text/plain": str(badge)}


def _run(source: Source, solution: bool, jobs: int) -> Outcome:
    outcome = run(source, solution=solution, threads=1 if jobs > 1 else None)
    kind = "solution" if solution else "student "
    verdict = "failed" if outcome.problems else "ok"
    print(f"{source.name} {kind} {outcome.seconds:5.0f} s  {verdict}", flush=True)
    return outcome


def run_only(source: Source, *, solution: bool, jobs: int) -> list[str]:
    """Execute one notebook without writing it; problems, wrong verdicts among them."""
    return _run(source, solution, jobs).problems


def measure(source: Source) -> list[str]:
    """Record how long the student notebook takes in the full budget; problems."""
    outcome = run(source, solution=False, budget="full")
    if not outcome.problems:
        runtimes.record(source.root, source.name, outcome.seconds, budget="full")
        print(f"{source.name}: {outcome.seconds:.0f} s in the full budget", flush=True)
    return outcome.problems


def check(source: Source) -> Iterator[str]:
    """What is wrong with the form of a source and with the notebooks built from it."""
    for problem in form_problems(source):
        yield f"src/{source.path.name}: {problem}"
    for solution in (False, True):
        target = source.target(solution=solution)
        name = target.relative_to(source.root)
        if not target.is_file():
            yield f"{name}: not built: run make notebooks"
            continue
        for problem in _built_problems(source, target, solution=solution):
            yield f"{name}: {problem}"


def _built_problems(source: Source, target: Path, *, solution: bool) -> Iterator[str]:
    built = nbformat.read(target, as_version=4)
    if skeleton(built) != skeleton(source.notebook(solution=solution)):
        yield "differs from its source: run make notebooks"
    code = [cell for cell in built.cells if cell.cell_type == "code" and cell.source.strip()]
    if any(cell.execution_count is None for cell in code):
        yield "not executed: run make notebooks"
    elif any(output.output_type == "error" for cell in code for output in cell.outputs):
        yield "holds an error: mend the source, run make notebooks"
    else:
        yield from verdict_problems(built, solution=solution)
    if target.stat().st_size > MAX_BYTES:
        yield f"{target.stat().st_size} bytes, at most {MAX_BYTES}: fewer or smaller pictures"


def check_all(chosen: list[Source], root: Path) -> list[str]:
    """Problems of the chosen sources, of names they share, and of the syllabus."""
    found = [problem for source in chosen for problem in check(source)]
    owner: dict[str, str] = {}
    for source in find_sources(root):
        for exercise in read_lesson(source.cells).exercises:
            if exercise.check and owner.setdefault(exercise.check.name, source.name) != source.name:
                first = owner[exercise.check.name]
                found.append(f"exercise {exercise.check.name!r} is in {first} and {source.name}")
    return found + [f"{problem}: run make notebooks" for problem in syllabus.problems(root)]


def in_parallel(tasks: list[Callable[[], list[str]]], jobs: int) -> list[str]:
    """All problems of `tasks`, of which `jobs` run at a time."""
    with ThreadPoolExecutor(jobs) as pool:
        waiting = [pool.submit(task) for task in tasks]
        return [problem for future in waiting for problem in future.result()]


def parser() -> argparse.ArgumentParser:
    """The grammar of this script."""
    grammar = argparse.ArgumentParser(
        description=(__doc__ or "").split("\n")[0],
        epilog="Without an option it builds.",
    )
    grammar.add_argument("names", nargs="*", metavar="NAME", help="e.g. 00_start_here")
    what = grammar.add_mutually_exclusive_group()
    what.add_argument("--check", action="store_true", help="check form and freshness, run nothing")
    what.add_argument("--run", action="store_true", help="execute and check, write nothing")
    what.add_argument("--handout", metavar="DIR", help="write notebooks without solutions there")
    what.add_argument("--nbgrader", metavar="DIR", help="write assignments for nbgrader there")
    what.add_argument(
        "--budget",
        choices=("quick", "full"),
        default="quick",
        help="full: measure it, build nothing",
    )
    text = "notebooks at a time, one thread each; runtimes are recorded only with 1 (1)"
    grammar.add_argument("--jobs", type=int, default=1, metavar="N", help=text)
    return grammar


def main(arguments: list[str] | None = None, *, root: Path = HERE) -> int:
    """Run one command on the course in `root`; 1 if there is a problem, else 0."""
    grammar = parser()
    options = grammar.parse_args(arguments)
    known = find_sources(root)
    chosen = [source for source in known if not options.names or source.name in options.names]
    unknown = set(options.names) - {source.name for source in chosen}
    if unknown or not chosen:
        grammar.error(f"no source for {sorted(unknown)}: there are {[s.name for s in known]}")
    if options.jobs < 1 or (options.jobs > 1 and options.budget == "full"):
        grammar.error(f"--jobs must be at least 1, and 1 with --budget full, got {options.jobs}")
    if options.check:
        found = check_all(chosen, root)
    elif options.run:
        task = partial(run_only, jobs=options.jobs)
        runs = [partial(task, source, solution=s) for source in chosen for s in (False, True)]
        found = in_parallel(runs, options.jobs)
    elif options.handout or options.nbgrader:
        write = write_handout if options.handout else write_assignments
        print(*write(chosen, Path(options.handout or options.nbgrader)), sep="\n")
        found = []
    else:
        task = measure if options.budget == "full" else partial(build, jobs=options.jobs)
        found = in_parallel([partial(task, source) for source in chosen], options.jobs)
        syllabus.write(root)
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
