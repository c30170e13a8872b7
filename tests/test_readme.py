"""What the README shows is run."""

import re
import shlex
from pathlib import Path

import torch

from fpkit.cli import build_parser
from fpkit.images import write_png
from fpkit.procedural import procedural_images

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    fences = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    return [text for name, text in fences if name == language]


def test_python_example_runs(tmp_path, monkeypatch, capsys):
    for name, image in zip("ab", procedural_images(2, 128, seed=0), strict=True):
        write_png(tmp_path / f"{name}.png", image)
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), names)
    spectrum, score = names["spectrum"], float(capsys.readouterr().out.split()[-1])
    assert spectrum.shape == (3, 128, 128) and -1 <= score <= 1
    assert torch.isfinite(torch.as_tensor(spectrum)).all()


def test_every_command_is_one_that_fpkit_has():
    parser = build_parser()
    text = "".join([*blocks("sh"), *blocks("")])
    lines = [line.split("  #")[0].removeprefix("$ ") for line in text.splitlines()]
    commands = [line for line in lines if line.startswith("fpkit ")]
    assert len(commands) >= 7
    for command in commands:
        arguments = parser.parse_args(shlex.split(command)[1:])
        assert arguments.verb == command.split()[1]


def test_every_link_and_script_is_there():
    links = [link for link in re.findall(r"\]\(([^)#]+)[^)]*\)", README) if "://" not in link]
    scripts = re.findall(r"python (\S+\.py)", README)
    assert len(links) > 5 and len(scripts) >= 2
    for path in (*links, *scripts):
        assert (ROOT / path).exists(), path
