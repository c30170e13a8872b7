import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from fpkit.assets import save_safetensors_atomic, zoo_path
from fpkit.distributed import Ranks, SharedBatchNorm2d, joined_ranks, rank_device, share_batch_norm
from fpkit.extractor import ExtractorConfig, load_extractor
from fpkit.learner import Learner
from fpkit.paper import PaperConfig
from fpkit.stream import Sources, StreamConfig
from fpkit.train_plan import TrainConfig
from fpkit.training import CHECKPOINT, LOG, train
from fpkit.zoo import Zoo

DEFAULT = TrainConfig(
    steps=3,
    warmup=1,
    held_out_share=0.0,
    stream=StreamConfig(models=4, images=2, random_share=0.5, sources=4),
    extractor=ExtractorConfig(crop=64, widths=(4, 4, 4), dim=4),
)
PAPER = replace(
    DEFAULT, loss="ce+triplet", extractor=PaperConfig(crop=32, width=2, denoiser="dncnn6N")
)


def run(out, config, **options):
    zoo, sources = Zoo.load(zoo_path()), Sources(procedural=4)
    return train(config, zoo=zoo, sources=sources, out=out, progress=False, **options)


def gradients(ranks):
    """Of the paper's network and losses on one batch of 8 crops, in float64."""
    learner = Learner(PAPER, synthesis="", classes=3, device=torch.device("cpu"), ranks=ranks)
    learner.modules.double()
    generator = torch.Generator().manual_seed(4)
    maps = torch.rand(8, 3, 32, 32, dtype=torch.float64, generator=generator)
    labels = torch.tensor([0, 1, 0, 2, 7, 1, 2, 7])
    own = slice(ranks.rank, None, ranks.count)
    raw = learner.extractor.encode([maps[own]])
    learner.loss(ranks.gather(raw), ranks.gather(labels[own])).backward()
    ranks.sum_gradients(learner.extractor.parameters())
    found = {name: p.grad for name, p in learner.modules.named_parameters()}
    return found | {f"buffer {name}": b for name, b in learner.modules.named_buffers()}


def interrupted_at_second(step):
    """`step` with a Ctrl-C during the second one, that reaches the second rank alone."""

    def interrupted(learner, crops, labels, number):
        if number == 1 and learner.ranks.rank == 1:
            signal.raise_signal(signal.SIGINT)
        return step(learner, crops, labels, number)

    return interrupted


def write_in_ranks(folder):
    """What every rank of the test below does."""
    run(folder / "whole", DEFAULT)
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Learner, "step", interrupted_at_second(Learner.step))
        run(folder / "parts", DEFAULT)
    run(folder / "parts", DEFAULT)
    with joined_ranks() as ranks:
        assert ranks.any(ranks.rank == 1) and not ranks.any(False)
        rows = ranks.gather(torch.full((2, 3), float(ranks.rank), requires_grad=True))
        assert rows[:, 0].tolist() == [0, 0, 1, 1]
        assert torch.distributed.get_world_size() == ranks.count == 2
        save_safetensors_atomic(folder / f"rank{ranks.rank}.safetensors", gradients(ranks))
    with pytest.raises(ValueError, match="3 models cannot be shared equally by 2 processes"):
        run(folder / "odd", replace(DEFAULT, stream=StreamConfig(models=3)))


def log_of(folder):
    return [json.loads(line) for line in (folder / LOG).read_text().splitlines()]


SCRIPT = """
import sys
import time
from pathlib import Path

sys.path.insert(0, {tests!r})
import test_distributed

test_distributed.write_in_ranks(Path({folder!r}))
"""


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """The folder that two processes under torchrun wrote into."""
    folder = tmp_path_factory.mktemp("ranks")
    script = folder / "script.py"
    script.write_text(SCRIPT.format(tests=os.path.dirname(__file__), folder=str(folder)))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    torchrun += ["--nproc-per-node", "2", str(script)]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(torchrun, env=alone, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return folder


def test_two_processes_take_the_steps_of_one(two_ranks, tmp_path):
    one = run(tmp_path, DEFAULT)
    first, second = (load_file(f / CHECKPOINT) for f in (tmp_path, two_ranks / "whole"))
    assert first.keys() == second.keys()
    for key, value in first.items():
        torch.testing.assert_close(second[key], value, atol=1e-5, rtol=1e-4, msg=key)
    logs = [log_of(folder) for folder in (tmp_path, two_ranks / "whole")]
    assert [[row["step"] for row in log] for log in logs] == [[1, 2, 3]] * 2
    losses = [[row["loss"] for row in log] for log in logs]
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert "auc" in logs[1][-1] and "auc" not in logs[1][0]
    both = load_extractor(two_ranks / "whole")
    assert both.card["processes"] == 2 and one.card["processes"] == 1
    torch.testing.assert_close(both.cohort, one.cohort, atol=1e-4, rtol=0)


def test_two_processes_stop_at_one_step_and_resume_exactly(two_ranks):
    whole, parts = (load_extractor(two_ranks / name) for name in ("whole", "parts"))
    assert whole.hash == parts.hash
    assert [row["step"] for row in log_of(two_ranks / "parts")] == [1, 2, 3]


def test_gradients_and_statistics_of_the_paper_s_network_are_those_of_the_whole_batch(two_ranks):
    """Exact but for the last digits of float64: nothing is weighted twice or forgotten."""
    expected = gradients(Ranks())
    for rank in range(2):
        found = load_file(two_ranks / f"rank{rank}.safetensors")
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, atol=1e-10, rtol=1e-9, msg=name)


def test_alone_nothing_is_gathered_or_copied():
    ranks = Ranks()
    own = torch.rand(3, 2)
    assert ranks.gather(own) is own and ranks.first
    assert ranks.any(True) and not ranks.any(False)
    with joined_ranks() as alone:
        assert alone == ranks
    assert not torch.distributed.is_initialized()


def test_a_rank_has_a_gpu_of_its_own(monkeypatch):
    assert rank_device("cuda") == torch.device("cuda")
    for name, value in {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert rank_device("cuda") == torch.device("cuda:1")
    assert rank_device("cuda:3") == torch.device("cuda:3")
    assert rank_device("cpu") == torch.device("cpu")


def test_shared_batch_norm_keeps_names_tensors_and_alone_its_results():
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Sequential(nn.BatchNorm2d(2))).eval()
    x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    before = {name: tensor.data_ptr() for name, tensor in network.state_dict().items()}
    expected = network(x)
    share_batch_norm(network)
    assert isinstance(network[1][0], SharedBatchNorm2d) and not network[1][0].training
    assert {k: v.data_ptr() for k, v in network.state_dict().items()} == before
    assert torch.equal(network(x), expected)
    normalised = network.train()(x)
    torch.testing.assert_close(normalised.mean((0, 2, 3)), torch.zeros(2), atol=1e-6, rtol=0)


WAITING = """
import sys
import time
from fpkit.distributed import joined_ranks
from fpkit.interrupts import termination_interrupts

with termination_interrupts(), joined_ranks() as ranks:
    print("here", flush=True)
    if ranks.rank == 1:
        sys.stdin.read()
    ranks.meet()
"""


@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM")
def test_a_rank_that_waits_for_another_leaves_when_it_is_told_to():
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1"}
    common |= {"MASTER_PORT": port, "WORLD_SIZE": "2"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = [sys.executable, "-c", WAITING]
    ranks = [subprocess.Popen(words, env=common | {"RANK": str(k)}, text=True, **pipes)
             for k in range(2)]  # fmt: skip
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["here\n"] * 2
        time.sleep(0.5)  # it is in the meeting
        ranks[0].send_signal(signal.SIGTERM)
        assert "KeyboardInterrupt: 15" in ranks[0].communicate(timeout=20)[1]
        assert ranks[1].poll() is None
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
