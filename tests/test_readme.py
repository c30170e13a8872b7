"""What the pages show is run; their commands, links and scripts exist."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from fpkit.cli import build_parser, main
from fpkit.gallery import Gallery
from fpkit.images import write_png
from fpkit.procedural import procedural_images

ROOT = Path(__file__).parent.parent
README, TEACHERS = ROOT / "README.md", ROOT / "notebooks" / "README.md"
CORPORA, CLUSTER = ROOT / "docs" / "corpora.md", ROOT / "docs" / "cluster.md"


def blocks(page: Path, language: str) -> list[str]:
    text = page.read_text(encoding="utf-8")
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return [text for name, text in fences if name == language]


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    for name, image in zip("ab", procedural_images(2, 128, seed=0), strict=True):
        write_png(tmp_path / f"{name}.png", image)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), names)
    spectrum, score = names["spectrum"], float(capsys.readouterr().out.split()[-1])
    assert spectrum.shape == (3, 128, 128) and -1 <= score <= 1
    assert torch.isfinite(torch.as_tensor(spectrum)).all()


def test_examples_of_corpora_run_one_after_the_other(tmp_path, monkeypatch):
    files = [str(tmp_path / f"{k}.png") for k in range(6)]
    for file, image in zip(files, procedural_images(6, 128, seed=0), strict=True):
        write_png(Path(file), image)
    monkeypatch.chdir(tmp_path)
    assert main(["embed", str(tmp_path), "--out", "embeddings"]) == 0
    names = {"files": files, "models": ["a", "b"] * 3}
    for example in blocks(CORPORA, "python"):
        exec(compile(example, "corpora.md", "exec"), names)
    assert names["vectors"].shape == (6, 128) and list(names["frame"]["path"]) == files
    assert Gallery.load("known.gallery", extractor_hash=names["gallery"].extractor_hash).models


@pytest.mark.parametrize(
    ("page", "least"), [(README, 7), (TEACHERS, 2), (CORPORA, 2), (CLUSTER, 1)]
)
def test_every_command_is_one_that_fpkit_has(page, least):
    parser = build_parser()
    text = "".join([*blocks(page, "sh"), *blocks(page, "")])
    lines = [line.split("  #")[0].removeprefix("$ ") for line in text.splitlines()]
    commands = [line for line in lines if line.startswith("fpkit ")]
    assert len(commands) >= least
    mentioned = re.findall(r"`(?:\w+=\w+ )?(fpkit \w[\w-]*)`", page.read_text(encoding="utf-8"))
    for command in commands:
        arguments = parser.parse_args(shlex.split(command)[1:])
        assert arguments.verb == command.split()[1]
    for verb in {command.split()[1] for command in mentioned}:
        with pytest.raises(SystemExit) as stopped:
            parser.parse_args([verb, "--help"])
        assert stopped.value.code == 0, verb


@pytest.mark.parametrize(
    ("page", "least", "scripts_least"),
    [(README, 6, 2), (TEACHERS, 4, 2), (CORPORA, 2, 2), (CLUSTER, 1, 1)],
)
def test_every_link_and_script_is_there(page, least, scripts_least):
    text = page.read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", text) if "://" not in link]
    scripts = re.findall(r"python (\S+\.py)", text)
    assert len(links) >= least and len(scripts) >= scripts_least
    for path in links:
        assert (page.parent / path).exists(), path
    for path in scripts:
        assert (ROOT / path).exists(), path
