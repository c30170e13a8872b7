"""What fpkit depends on: licences, who needs what, withdrawn releases, known vulnerabilities.

    make audit                                    # installs the extra `audit` first
    python benchmarks/dependencies.py [--quick] [--json]

Four parts. *Licences*: every package that fpkit and its extras bring, with its licence from its own
metadata; each must be in `ALLOWED`. *Use*: every declared dependency is imported, or has a reason
in `NOT_IMPORTED`; everything that is imported is declared or comes with something declared.
*Releases*: no pin of constraints.txt was withdrawn from the package index. *Vulnerabilities*:
pip-audit asks an advisory database about every pin, for all Pythons and platforms. The last two
need a network and are left out by ``--quick``.

pip-audit passes over a package that its database does not know, and reports "no known
vulnerabilities" if it could ask about none of them; so its answers are counted here. Exit codes: 0
all was checked and is well; 1 something is wrong; 2 wrong usage; 3 nothing is known to be wrong,
but a part could not be checked (`make` turns any failure into its own code 2 and prints the 3).
"""

import argparse
import ast
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import (
    PackageMetadata,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)
from itertools import zip_longest
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
PINS = ROOT / "constraints.txt"
WELL, WRONG, UNCHECKED = 0, 1, 3

# Licences that let a course hand the whole environment to its students, as SPDX names.
ALLOWED = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD", "BSD-2-Clause"),
    *("BSD-3-Clause", "BSL-1.0", "CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0"),
    *("PSF-2.0", "Zlib"),
}
# What older metadata calls them; the first pattern that is found counts.
WORDS = {
    r"apache(?! .*mit)": "Apache-2.0",
    r"mpl|mozilla public": "MPL-2.0",
    r"\bpsfl?\b|python software foundation": "PSF-2.0",
    r"\bisc\b|\biscl\b": "ISC",
    r"bsd[ -]?3|3-clause": "BSD-3-Clause",
    r"bsd[ -]?2|2-clause": "BSD-2-Clause",
    r"\bbsd\b": "BSD",
    r"\bmit\b": "MIT",
}
# Their metadata names no licence; read from the licence file that they install.
READ_BY_HAND = {"atheris": "Apache-2.0", "umap-learn": "BSD-3-Clause"}
# CUDA builds of torch bring these, under NVIDIA's own terms; fpkit needs none of them.
WITH_CUDA = ("nvidia-", "cuda-", "triton")
NOT_IMPORTED = {
    "anywidget": "figures that plotly shows in a notebook",
    "jupyterlab": "run by fpkit lab",
    "onnxscript": "torch writes ONNX with it",
    "pytest-timeout": "a plugin of pytest",
    "ipykernel": "runs the notebooks",
    "build": "run by the test of the wheel",
    "ruff": "run by the tests",
    "pip-audit": "run here",
}


def requirements() -> dict[str, list[Requirement]]:
    """The declared dependencies by extra; "" are those of fpkit itself."""
    found: dict[str, list[Requirement]] = {}
    for text in distribution("fpkit").requires or ():
        need = Requirement(text)
        extra = re.search(r"extra == ['\"]([^'\"]+)['\"]", str(need.marker or ""))
        found.setdefault(extra.group(1) if extra else "", []).append(need)
    return found


def closure(needs: Iterable[Requirement]) -> dict[str, str]:
    """Everything that gets installed for these: canonical name -> the declared one it is for."""
    found: dict[str, str] = {}
    waiting = [(need, canonicalize_name(need.name)) for need in needs]
    seen = set()
    while waiting:
        need, root = waiting.pop(0)
        name = canonicalize_name(need.name)
        if (name, frozenset(need.extras)) in seen:
            continue
        seen.add((name, frozenset(need.extras)))
        found.setdefault(name, root)
        try:
            texts = distribution(name).requires or ()
        except PackageNotFoundError:
            continue
        for more in map(Requirement, texts):
            if any(
                more.marker is None or more.marker.evaluate({"extra": extra})
                for extra in ("", *need.extras)
            ):
                waiting.append((more, root))
    return found


# ---- licences ----------------------------------------------------------------------------------


def licence(name: str, metadata: PackageMetadata) -> str:
    """SPDX expression of the package of this canonical name, "unknown" where none is given."""
    if expression := metadata["License-Expression"]:
        return expression
    classifiers = [
        text.split(" :: ")[-1]
        for text in metadata.get_all("Classifier") or ()
        if text.startswith("License")
    ]
    field = (metadata["License"] or "").strip()
    for text in (field.splitlines()[0] if field else "", *classifiers, field):
        if re.fullmatch(r"[\w.+-]+( (AND|OR|WITH) [\w.+-]+)+", text):
            return text
        for pattern, spdx in WORDS.items():
            if re.search(pattern, text, re.IGNORECASE):
                return READ_BY_HAND.get(name, spdx)
    return READ_BY_HAND.get(name, "unknown")


def is_allowed(expression: str) -> bool:
    """Whether every part joined by AND has an alternative, joined by OR, in `ALLOWED`."""
    return all(
        any(choice.strip(" ()") in ALLOWED for choice in part.split(" OR "))
        for part in expression.split(" AND ")
    )


def check_licences(groups: Mapping[str, Sequence[Requirement]]) -> tuple[list[dict], list[str]]:
    """Rows (name, version, licence, extra that brings it) and what is wrong."""
    rows, wrong, missing = [], [], set()
    seen: set[str] = set()
    for extra in sorted(groups):
        for name in sorted(closure(groups[extra])):
            if name in seen or name == "fpkit" or name.startswith(WITH_CUDA):
                continue
            try:
                found = distribution(name)
            except PackageNotFoundError:
                missing.add(name)
                continue
            seen.add(name)
            text = licence(name, found.metadata)
            rows.append({"name": name, "version": found.version, "licence": text, "extra": extra})
            if not is_allowed(text):
                wrong.append(f"{name} {found.version}: licence {text} is not in the list")
    for name in sorted(missing - seen):
        rows.append({"name": name, "version": "-", "licence": "not installed here", "extra": ""})
    return rows, wrong


# ---- use ---------------------------------------------------------------------------------------


def imported(folders: Iterable[Path]) -> dict[str, set[str]]:
    """Top-level modules outside the standard library -> the files that import them."""
    found: dict[str, set[str]] = {}
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            else:
                continue
            for name in (name.split(".")[0] for name in names):
                if name not in sys.stdlib_module_names:
                    found.setdefault(name, set()).add(path.name)
    return found


def check_use(
    groups: Mapping[str, Sequence[Requirement]], root: Path = ROOT
) -> tuple[list[dict], list[str]]:
    """Rows (module, package, how it is declared) and what is wrong."""
    owners = packages_distributions()
    packages = {
        module: {canonicalize_name(name) for name in names} for module, names in owners.items()
    }
    library = imported([root / "fpkit"])
    everything = imported(root / name for name in ("fpkit", "tests", "benchmarks", "notebooks"))
    everything |= {"hatchling": {"hatch_build.py"}}
    used = {name for module in everything for name in packages.get(module, ())}
    plain = {canonicalize_name(need.name) for need in groups.get("", ())}
    declared = {canonicalize_name(need.name) for needs in groups.values() for need in needs}
    shipped = [
        need for extra, needs in groups.items() if extra not in ("test", "audit") for need in needs
    ]
    brought = closure(shipped)
    extras = {canonicalize_name(need.name) for need in shipped}

    rows, wrong = [], []
    for name in sorted(declared - used):
        reason = NOT_IMPORTED.get(name)
        try:
            distribution(name)
        except PackageNotFoundError:
            continue  # nothing can be said of a package that is not here
        rows.append({"module": "-", "package": name, "declared": reason or "no use found"})
        if reason is None:
            wrong.append(f"{name} is declared, but nothing imports it")
    for module, files in sorted(library.items()):
        for name in sorted(packages.get(module, {module}) - {"fpkit"}):
            if name in plain:
                how = "dependency"
            elif name in extras:
                how = "extra"
            elif name in brought:
                how = f"comes with {brought[name]}"
            else:
                how = "not declared"
                wrong.append(f"{sorted(files)[0]} imports {module}, which nothing declared brings")
            rows.append({"module": module, "package": name, "declared": how})
    for name in sorted(plain - {owner for module in library for owner in packages.get(module, ())}):
        wrong.append(f"{name} is a dependency of fpkit, but no module of fpkit imports it")
    return rows, wrong


# ---- releases and vulnerabilities: these need a network ----------------------------------------


def all_pins(path: Path = PINS) -> dict[str, list[str]]:
    """Every pinned version of every package, whatever Python or platform it is for."""
    found: dict[str, list[str]] = {}
    for line in path.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(pin.name, []).append(next(iter(pin.specifier)).version)
    return {name: list(dict.fromkeys(versions)) for name, versions in found.items()}


def check_releases() -> tuple[int, list[str], str]:
    """Pins for this Python that the index knows, those withdrawn, and why it could not be asked."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        done = subprocess.run(
            [*(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed"),
             *("--no-deps", "--quiet", "--report", report, "-r", PINS)],
            capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode or not report.is_file():
            return 0, [], (done.stderr.strip().splitlines() or ["pip gave no reason"])[-1]
        installs = json.loads(report.read_text("utf-8"))["install"]
    withdrawn = [
        f"{item['metadata']['name']} {item['metadata']['version']} was withdrawn from the index"
        for item in installs
        if item.get("is_yanked")
    ]
    return len(installs), withdrawn, ""


def read_audit(text: str) -> tuple[set[str], list[str]]:
    """From pip-audit's JSON: "name version" of those it asked about, and the vulnerabilities."""
    asked, wrong = set(), []
    for row in json.loads(text)["dependencies"]:
        if "skip_reason" in row:
            continue
        asked.add(f"{canonicalize_name(row['name'])} {row['version']}")
        for flaw in row["vulns"]:
            fixed = ", ".join(flaw["fix_versions"]) or "no release yet"
            wrong.append(f"{row['name']} {row['version']}: {flaw['id']}, fixed in {fixed}")
    return asked, wrong


def check_vulnerabilities(pins: Mapping[str, Sequence[str]]) -> tuple[set[str], list[str], str]:
    """Pins that the database was asked about, vulnerabilities, and why it could not be asked.

    A requirements file names a package once, so that a second version goes into a second file.
    """
    asked: set[str] = set()
    wrong: list[str] = []
    reason = ""
    rounds = zip_longest(*([f"{name}=={v}" for v in several] for name, several in pins.items()))
    for lines in rounds:
        with tempfile.TemporaryDirectory() as folder:
            listed = Path(folder) / "pins.txt"
            listed.write_text("\n".join(filter(None, lines)), "utf-8")
            done = subprocess.run(
                [*(sys.executable, "-m", "pip_audit", "-r", listed, "--no-deps"),
                 *("--disable-pip", "--format", "json", "--progress-spinner", "off")],
                capture_output=True, text=True,
            )  # fmt: skip
        try:
            some, flaws = read_audit(done.stdout)
        except (ValueError, KeyError):
            reason = (done.stderr.strip().splitlines() or ["pip-audit gave no reason"])[-1]
            continue
        asked |= some
        wrong += flaws
    return asked, wrong, reason


# ---- the command -------------------------------------------------------------------------------


def show(title: str, rows: Sequence[Mapping[str, str]]) -> None:
    print(f"\n{title}")
    widths = [max(len(row[key]) for row in rows) for key in rows[0]]
    for row in rows:
        print("  " + "  ".join(f"{v:<{w}}" for v, w in zip(row.values(), widths, strict=True)))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="only what needs no network")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of tables")
    arguments = parser.parse_args(argv)

    groups = requirements()
    licences, wrong = check_licences(groups)
    use, unused = check_use(groups)
    wrong += unused
    missing = [row["name"] for row in licences if row["version"] == "-"]
    unchecked = [f"licence of {name}: it is not installed here" for name in missing]

    pins = all_pins()
    total = sum(map(len, pins.values()))
    releases, asked = 0, set()
    if not arguments.quick:
        releases, withdrawn, reason = check_releases()
        if reason:
            unchecked.append(f"withdrawn releases: the package index did not answer ({reason})")
        asked, flaws, reason = check_vulnerabilities(pins)
        wrong += withdrawn + flaws
        if len(asked) < total:
            known = {f"{canonicalize_name(name)} {v}" for name in pins for v in pins[name]}
            rest = sorted(known - asked)
            some = ", ".join(rest[:5]) + (", ..." if len(rest) > 5 else "")
            unchecked.append(
                f"vulnerabilities: no advisory database answered for {len(rest)} of {total} pins"
                f" ({some}){': ' + reason if reason else ''};"
                " run `make audit` where there is a network"
            )

    if arguments.json:
        answer = {"licences": licences, "use": use, "wrong": wrong, "unchecked": unchecked}
        print(json.dumps(answer | {"pins": total, "asked": sorted(asked), "releases": releases}))
    else:
        show("licences (package, version, licence, extra that brings it)", licences)
        show("use (module of an import in fpkit, package, how it is declared)", use)
        print()
        for text in wrong:
            print(f"WRONG: {text}")
        for text in unchecked:
            print(f"NOT CHECKED: {text}")
        network = "releases and vulnerabilities left out" if arguments.quick else (
            f"{releases} pins looked up for withdrawal, {len(asked)} of {total} for vulnerabilities"
        )  # fmt: skip
        print(f"{len(licences) - len(missing)} licences read, {network}; {len(wrong)} wrong")
    return WRONG if wrong else UNCHECKED if unchecked else WELL


if __name__ == "__main__":
    sys.exit(main())
