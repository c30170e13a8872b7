from dataclasses import replace

import pytest

from fpkit.assets import zoo_path
from fpkit.cli import build_parser, main
from fpkit.cli_make import _command, _train_config
from fpkit.extractor import ExtractorConfig, build_extractor
from fpkit.paper import PaperConfig
from fpkit.stream import StreamConfig
from fpkit.train_plan import TrainConfig, train_preset
from fpkit.training import split_zoo
from fpkit.zoo import Zoo


def parsed(*words):
    return build_parser().parse_args(["train", "--out", "somewhere", *words])


def test_the_paper_s_plan():
    plan = train_preset("paper")
    assert plan.loss == "ce+triplet" and plan.margin == 0.3 and plan.learning_rate == 1e-4
    assert plan.stream.models * plan.stream.images == 200
    assert plan.stream.random_share == 0 and plan.stream.jpeg_share == 0
    assert plan.extractor == PaperConfig() and plan.extractor.denoiser == "dncnn17N"
    # the shipped zoo has enough models for it
    plan.stream.synthesizer(Zoo.load(zoo_path()), split_zoo(Zoo.load(zoo_path()), plan)[0]).check(
        plan.stream.models
    )


def test_the_default_plan_and_its_small_pupil():
    plan = train_preset("default")
    assert replace(plan, stream=StreamConfig()) == TrainConfig()
    assert (plan.stream.encoder, plan.stream.space) == ("both", "both")
    small = train_preset("small")
    assert small.loss == "teacher" and small.stream == plan.stream
    sizes = [
        sum(p.numel() for p in build_extractor(x.extractor).parameters()) for x in (plan, small)
    ]
    assert sizes[1] < sizes[0] / 5
    with pytest.raises(ValueError, match="preset must be one of"):
        train_preset("best")


@pytest.mark.parametrize("name", ["default", "small", "paper"])
def test_options_change_single_parts_of_a_preset(name):
    preset = train_preset(name)
    assert _train_config(parsed("--preset", name)) == preset
    changed = parsed("--preset", name, "--steps", "7", "--models", "3", "--random-share", "0.5")
    stream = replace(preset.stream, models=3, random_share=0.5)
    assert _train_config(changed) == replace(preset, steps=7, stream=stream)


@pytest.mark.parametrize("name", ["default", "small", "paper"])
def test_the_command_on_the_card_repeats_the_plan(name):
    arguments = parsed("--preset", name, "--seed", "3", "--precision", "bfloat16")
    config = _train_config(arguments)
    words = _command(arguments, config).split()
    assert words[:2] == ["fpkit", "train"]
    assert _train_config(build_parser().parse_args(words[1:])) == config


@pytest.mark.parametrize("rank", [0, 1])
def test_under_torchrun_the_first_rank_speaks_and_writes_for_all(
    monkeypatch, capsys, tmp_path, rank
):
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "2")

    def trained(config, **options):
        extractor = build_extractor(ExtractorConfig(crop=32, widths=(2, 2, 2), dim=2)).eval()
        extractor.card = {"steps": config.steps, "seconds": 1, "verification": {"auc": 0.5}}
        return extractor

    monkeypatch.setattr("fpkit.training.train", trained)
    assert main(["train", "--out", str(tmp_path / "out"), "--procedural", "4"]) == 0
    said = capsys.readouterr().out
    assert (said.count("extractor") == 1) == (rank == 0) and (said == "") == (rank == 1)
    assert (tmp_path / "out").exists() == (rank == 0)
