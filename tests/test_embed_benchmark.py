"""benchmarks/embed.py: the pipeline that it compares with, and what it prints."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).resolve().parent.parent / "benchmarks"


@pytest.fixture
def module(monkeypatch):
    """Loads a benchmark as a module."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"{name}_benchmark", FOLDER / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    yield load
    for name in ("device", "paper_pipeline"):  # that benchmarks import by their short names
        sys.modules.pop(name, None)


def test_the_paper_s_pipeline_runs_its_encoder_twice_and_its_decoder_once(module):
    pipeline = module("paper_pipeline").PaperPipeline().eval().requires_grad_(False)
    passes = {"denoiser": 0, "encoder": 0, "decoder": 0}
    parts = {
        "denoiser": pipeline.denoiser[-1],
        "encoder": pipeline.encoder.stages[-1],
        "decoder": pipeline.decoder[-1],
    }
    for name, part in parts.items():

        def count(*_, name=name):
            passes[name] += 1

        part.register_forward_hook(count)
    shapes = []
    pipeline.decoder[-1].register_forward_hook(lambda _, __, out: shapes.append(out.shape))
    assert pipeline(torch.rand(2, 3, 64, 64)).shape == (2, 2048)
    assert passes == {"denoiser": 1, "encoder": 2, "decoder": 1}
    assert shapes == [(2, 16, 64, 64)]  # back at full size


def test_contenders_take_turns_on_the_same_images(module):
    embed = module("embed")
    turns = []

    class Contender:
        def __init__(self, name):
            self.name = name

        def embed(self, images):
            turns.append((self.name, len(images)))

    contenders = {name: Contender(name) for name in "ab"}
    rates = embed.images_per_second(contenders, [None] * 5, 3, torch.device("cpu"))
    assert turns == [("a", 5), ("b", 5)] * 4  # one round to warm up
    assert set(rates) == {"a", "b"} and min(rates.values()) > 0


@pytest.mark.slow
def test_the_last_line_is_json():
    command = [sys.executable, str(FOLDER / "embed.py"), "--quick", "--device", "cpu"]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    result = json.loads(output.splitlines()[-1])
    assert result["device"] == "cpu" and result["ratio"] > 10 and result["images_per_second"] > 0
    assert result["ratio"] == pytest.approx(
        result["images_per_second"] / result["paper_images_per_second"], rel=0.05
    )
