import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch

from fpkit.arch import AXES, ArchSpec
from fpkit.cli import main
from fpkit.procedural import procedural_images
from fpkit.temporaries import temporary_beside
from fpkit.zoo import Zoo
from fpkit.zoo_build import build_zoo, summary, training_images
from fpkit.zoo_plan import ZooPlan, preset_plan

ARCHS = tuple(
    ArchSpec(blocks=1, norm="none", upsample=upsample, activation=activation).id
    for upsample in ("deconv", "nearest")
    for activation in ("none", "tanh")
)
PLAN = ZooPlan(archs=ARCHS[:2], seeds=2, max_steps=3)


@pytest.fixture(scope="module")
def images():
    return procedural_images(4, 64, seed=0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, images):
    out = tmp_path_factory.mktemp("zoo") / "whole"
    return build_zoo(PLAN, images, out=out, source="four", jobs=1, progress=False)


def contents(folder):
    """What must not depend on how a zoo was built: all but the log of times."""
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "times.jsonl"}


def test_it_builds_what_the_plan_says(whole, capsys):
    assert whole.model_ids == PLAN.model_ids and len(whole) == 4
    assert whole.recipe["archs"] == list(ARCHS[:2]) and whole.recipe["max_steps"] == 3
    assert "4 models of 2 architectures" in summary(whole)
    assert main(["zoo", "summary", str(whole.path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["models"], printed["architectures"]) == (4, 2)
    assert f"{printed['residual']:.4f}" in summary(whole)
    assert all(entry["steps"] == 3 for entry in whole.entries)
    times = [json.loads(line) for line in (whole.path / "times.jsonl").read_text().splitlines()]
    assert [line["arch_id"] for line in times] == list(ARCHS[:2])
    assert all(0 < seconds < 60 for line in times for seconds in line["seconds"])


def test_threads_of_the_caller_stay(tmp_path, images, whole):
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    again = build_zoo(PLAN, images, out=tmp_path / "z", source="four", jobs=1, progress=False)
    assert torch.get_num_threads() == threads + 1
    torch.set_num_threads(threads)
    assert contents(again.path) == contents(whole.path)


def test_a_build_goes_on_where_it_was_interrupted(tmp_path, images, whole):
    """After any stack, before or after the manifest is renewed, whatever lies about."""
    out = tmp_path / "zoo"
    part = replace(PLAN, archs=PLAN.archs[:1])
    zoo = build_zoo(part, images, out=out, source="four", jobs=1, progress=False)
    zoo.recipe = whole.recipe
    zoo.entries = zoo.entries[:1]  # the last file is there, its entry was not written
    zoo._write_manifest()
    half = out / whole.entries[2]["file"]
    half.write_bytes(b"half a file")
    dead = temporary_beside(half).name.replace(f"-{os.getpid()}-", "-99999999-")
    (out / dead).write_bytes(b"killed while writing")
    options = {"out": out, "source": "four", "jobs": 1, "progress": False}
    with pytest.raises(FileExistsError, match="already holds a zoo"):
        build_zoo(PLAN, images, **options)
    kept = (out / zoo.entries[0]["file"]).stat().st_mtime_ns
    resumed = build_zoo(PLAN, images, resume=True, **options)
    assert contents(resumed.path) == contents(whole.path)
    assert (out / zoo.entries[0]["file"]).stat().st_mtime_ns == kept  # not trained again
    again = build_zoo(PLAN, images, resume=True, **options)  # nothing left to do
    assert contents(again.path) == contents(whole.path)


def test_another_plan_or_source_is_no_resume(images, whole):
    options = {"out": whole.path, "resume": True, "progress": False}
    with pytest.raises(ValueError, match="another max_steps"):
        build_zoo(replace(PLAN, max_steps=4), images, source="four", **options)
    with pytest.raises(ValueError, match="trained on four, not on five"):
        build_zoo(PLAN, images, source="five", **options)


@pytest.mark.slow
def test_processes_give_what_one_process_gives(tmp_path, images, whole):
    zoo = build_zoo(PLAN, images, out=tmp_path / "z", source="four", jobs=2, progress=False)
    assert contents(zoo.path) == contents(whole.path)


COMMAND = ["-m", "fpkit", "zoo", "build", "--preset", "tiny", "--max-steps", "3", "--device", "cpu"]
ALONE = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The tiny preset, three steps per model, built undisturbed by two processes."""
    out = tmp_path_factory.mktemp("tiny") / "zoo"
    subprocess.run([sys.executable, *COMMAND, "--jobs", "2", "--out", str(out)], check=True)
    return out


def test_a_killed_build_resumes_to_the_same_zoo(tmp_path, tiny):
    out = tmp_path / "zoo"
    command = [sys.executable, *COMMAND, "--jobs", "2", "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("*.safetensors")) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = {path: path.stat().st_mtime_ns for path in out.glob("*.safetensors")}
    assert 0 < len(finished) < 8, "killed too late or too early"
    subprocess.run([*command, "--resume"], check=True, stderr=subprocess.DEVNULL)
    assert contents(out) == contents(tiny)
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())


def test_ranks_share_the_work_and_give_the_same_zoo(tmp_path, tiny):
    """torchrun with two processes: every model once, the same zoo as from one command."""
    out = tmp_path / "zoo"
    torchrun = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    torchrun += ["--nproc-per-node", "2", *COMMAND, "--out", str(out)]
    result = subprocess.run(torchrun, env=ALONE, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("8 models of 4 architectures") == 1
    assert contents(out) == contents(tiny)
    assert Zoo.load(out).model_ids == preset_plan("tiny").model_ids


def test_presets_are_what_they_say():
    starter, paper = preset_plan("starter"), preset_plan("paper")
    assert len(paper.model_ids) == len(set(paper.model_ids)) == 5760
    assert starter.archs == paper.archs[:80] and starter.storage == "float16"
    specs = [ArchSpec.parse(arch) for arch in starter.archs]
    for field, options in AXES.values():
        assert {getattr(spec, field) for spec in specs} == set(options)
    extended = preset_plan("extended")
    assert len(extended.model_ids) == 4000 and len(set(extended.archs)) == 1000
    with pytest.raises(ValueError, match="preset must be"):
        preset_plan("huge")


def test_training_images_with_and_without_photographs(tmp_path):
    import numpy as np

    computed, source = training_images()
    assert computed.shape == (192, 3, 128, 128) and source.startswith("procedural_images(192")
    tiles = np.full((128, 130, 140, 3), 51, np.uint8)
    np.save(tmp_path / "tiles.npy", tiles)
    mixed, source = training_images(tmp_path / "tiles.npy")
    flat = (mixed == 51 / 255).all(dim=1).all(dim=1).all(dim=1)
    assert mixed.shape == (192, 3, 128, 128) and flat.sum() == 128
    assert source.startswith("128 photograph tiles")
    np.save(tmp_path / "few.npy", tiles[:3])
    with pytest.raises(ValueError, match="at least 128 tiles"):
        training_images(tmp_path / "few.npy")
    np.save(tmp_path / "small.npy", tiles[:, :100])
    with pytest.raises(ValueError, match="at least 128 pixels"):
        training_images(tmp_path / "small.npy")


@pytest.mark.parametrize("options", [{"archs": ()}, {"archs": ("a", "a")}, {"seeds": 0}])
def test_a_plan_without_models_is_refused(options):
    with pytest.raises(ValueError, match="at least"):
        replace(PLAN, **options)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_builds_the_same_models_and_applies_them_grouped(tmp_path, images, whole):
    zoo = build_zoo(PLAN, images, out=tmp_path / "z", source="four", device="cuda", progress=False)
    assert zoo.model_ids == whole.model_ids
    inputs = images[None].expand(4, *images.shape)
    expected = whole.apply_many(whole.model_ids, inputs)
    output = whole.apply_many(whole.model_ids, inputs.cuda())
    assert output.is_cuda
    torch.testing.assert_close(output.cpu(), expected, atol=1.01 / 255, rtol=0)
