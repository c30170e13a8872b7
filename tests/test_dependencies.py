"""benchmarks/dependencies.py: licences, use, and what is said where nothing could be checked."""

import importlib.util
import json
import subprocess
from email.message import Message
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def audit():
    path = ROOT / "benchmarks" / "dependencies.py"
    spec = importlib.util.spec_from_file_location("dependencies_benchmark", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def metadata(expression: str = "", field: str = "", classifier: str = "") -> Message:
    message = Message()
    for name, value in (("License-Expression", expression), ("License", field)):
        if value:
            message[name] = value
    if classifier:
        message["Classifier"] = f"License :: OSI Approved :: {classifier}"
    return message


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"expression": "MIT-CMU", "field": "BSD"}, "MIT-CMU"),
        ({"field": "MPL-2.0 AND MIT"}, "MPL-2.0 AND MIT"),
        ({"field": "BSD 3-Clause License\n\nAll rights reserved"}, "BSD-3-Clause"),
        ({"field": "Apache License, Version 2.0"}, "Apache-2.0"),
        ({"field": "UNKNOWN", "classifier": "ISC License (ISCL)"}, "ISC"),
        ({"classifier": "Python Software Foundation License"}, "PSF-2.0"),
        ({"field": "Copyright (c) somebody", "classifier": "BSD License"}, "BSD"),
        ({"classifier": "GNU General Public License v3 (GPLv3)"}, "unknown"),
        ({"field": "permission by mail"}, "unknown"),  # "permission" holds no "mit" of its own
        ({}, "unknown"),
    ],
)
def test_licence_is_read_from_old_and_new_metadata(audit, given, expected):
    assert audit.licence("some-package", metadata(**given)) == expected


def test_every_part_of_a_licence_must_be_allowed_and_one_choice_is_enough(audit):
    assert audit.is_allowed("MIT") and audit.is_allowed("BSD-2-Clause AND Zlib")
    assert audit.is_allowed("Apache-2.0 WITH LLVM-exception AND MIT")
    assert audit.is_allowed("GPL-2.0-only OR MIT")
    assert not audit.is_allowed("MIT AND GPL-3.0-only")
    assert not audit.is_allowed("GPL-3.0-only") and not audit.is_allowed("unknown")


def test_all_that_is_installed_for_fpkit_has_an_allowed_licence(audit):
    rows, wrong = audit.check_licences(audit.requirements())
    assert not wrong
    known = {row["name"]: row for row in rows}
    assert known["numpy"]["extra"] == "" and "BSD-3-Clause" in known["numpy"]["licence"]
    assert known["sympy"]["extra"] == ""  # torch brings it
    assert known["traitlets"]["extra"] == "lab"
    assert len(rows) > 100


def test_every_dependency_is_used_and_every_import_declared(audit):
    rows, wrong = audit.check_use(audit.requirements())
    assert not wrong
    how = {row["package"]: row["declared"] for row in rows}
    assert how["torch"] == "dependency" and how["umap-learn"] == "extra"
    assert how["scipy"] == "comes with scikit-learn"


def test_a_stray_import_and_an_idle_dependency_are_found(audit, tmp_path):
    (tmp_path / "fpkit").mkdir()
    (tmp_path / "fpkit" / "module.py").write_text("import pytest\nfrom numpy import fft\nimport os")
    groups = {"": [Requirement("numpy"), Requirement("pillow")]}
    _, wrong = audit.check_use(groups, tmp_path)
    assert len(wrong) == 3
    assert "module.py imports pytest, which nothing declared brings" in wrong
    assert sum("pillow" in text for text in wrong) == 2  # nobody's, and not of fpkit


# ---- the parts that need a network: an index and a database made up ----------------------------


def made_up(skipped: set[str] = frozenset(), flawed: str = "", withdrawn: str = ""):
    """A `subprocess.run` that answers as pip and pip-audit do."""

    def run(command: list, **_: object) -> subprocess.CompletedProcess:
        words = [str(word) for word in command]
        if "pip" in words:
            report = Path(words[words.index("--report") + 1])
            item = {"metadata": {"name": "numpy", "version": "2"}, "is_yanked": bool(withdrawn)}
            report.write_text(json.dumps({"install": [item]}), "utf-8")
            return subprocess.CompletedProcess(words, 0, "", "")
        rows = []
        for line in Path(words[words.index("-r") + 1]).read_text("utf-8").splitlines():
            name, version = line.split("==")
            if skipped == {"all"} or name in skipped:
                rows.append({"name": name, "skip_reason": f"not found: {name} ({version})"})
                continue
            flaws = [{"id": "PYSEC-1", "fix_versions": ["9.9"]}] if name == flawed else []
            rows.append({"name": name, "version": version, "vulns": flaws})
        text = json.dumps({"dependencies": rows})
        return subprocess.CompletedProcess(words, 1 if flawed else 0, text, "no known ...")

    return run


def verdict(audit, monkeypatch, capsys, run) -> tuple[int, str]:
    monkeypatch.setattr(audit.subprocess, "run", run)
    monkeypatch.setattr(audit, "check_use", lambda groups: ([{"module": "m"}], []))
    monkeypatch.setattr(audit, "check_licences", lambda groups: ([{"version": "1"}], []))
    return audit.main([]), capsys.readouterr().out


def test_all_checked_and_well_is_zero(audit, monkeypatch, capsys):
    code, out = verdict(audit, monkeypatch, capsys, made_up())
    total = sum(map(len, audit.all_pins().values()))
    assert code == 0 and f"{total} of {total} for vulnerabilities; 0 wrong" in out


def test_an_audit_that_asked_about_nothing_does_not_pass(audit, monkeypatch, capsys):
    code, out = verdict(audit, monkeypatch, capsys, made_up(skipped={"all"}))
    assert code == 3 and " 0 of " in out and "no advisory database answered" in out


def test_a_pin_that_the_database_does_not_know_is_named(audit, monkeypatch, capsys):
    code, out = verdict(audit, monkeypatch, capsys, made_up(skipped={"tqdm"}))
    version = audit.all_pins()["tqdm"][0]
    assert code == 3 and f"(tqdm {version})" in out


def test_vulnerable_and_withdrawn_pins_are_wrong(audit, monkeypatch, capsys):
    code, out = verdict(audit, monkeypatch, capsys, made_up(flawed="pillow"))
    assert code == 1
    assert out.count("WRONG: pillow") == len(audit.all_pins()["pillow"]) == 2
    assert "PYSEC-1, fixed in 9.9" in out
    code, out = verdict(audit, monkeypatch, capsys, made_up(withdrawn="numpy"))
    assert code == 1 and "WRONG: numpy 2 was withdrawn" in out


def test_no_answer_at_all_is_told_with_its_reason(audit, monkeypatch, capsys):
    def run(command: list, **_: object) -> subprocess.CompletedProcess:
        return subprocess.CompletedProcess(command, 1, "", "a trace\nName or service not known\n")

    code, out = verdict(audit, monkeypatch, capsys, run)
    assert code == 3 and out.count("Name or service not known") == 2
