import pytest
import torch
from torch import nn

from fpkit.resnet import Bottleneck, ResNet50


def test_it_has_fifty_layers_and_the_parameters_of_the_original():
    with torch.device("meta"):
        network = ResNet50()
    weighted = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    shortcuts = [m for m in network.modules() if isinstance(m, nn.Sequential) and len(m) == 2]
    assert len(weighted) - len(shortcuts) == 49  # the fiftieth is the classifier
    # 25,557,032 with a classifier of 1000 classes: He et al.'s network, as every library has it
    classifier = 2048 * 1000 + 1000
    assert sum(p.numel() for p in network.parameters()) + classifier == 25_557_032
    assert network.dim == 2048


def test_maps_halve_and_the_feature_is_the_mean_of_the_last():
    network = ResNet50(5, width=2).eval()
    x = torch.randn(2, 5, 64, 32, generator=torch.Generator().manual_seed(0))
    maps = network.maps(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (2, 32, 16),
        (8, 16, 8),
        (16, 8, 4),
        (32, 4, 2),
        (64, 2, 1),
    ]
    torch.testing.assert_close(network(x), maps[-1].flatten(2).mean(2))
    assert network(x).shape == (2, network.dim)


def test_a_bottleneck_whose_path_is_silent_passes_its_input_on():
    block = Bottleneck(8, 2, stride=1)
    nn.init.zeros_(block.path[-1].weight)  # the last normalisation's gain
    x = torch.rand(3, 8, 5, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(x), x)
    assert Bottleneck(8, 2, stride=2)(x).shape == (3, 8, 3, 3)


def test_memory_layout_changes_nothing_but_speed():
    network = ResNet50(width=2).eval()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    expected = network(x)
    network.to(memory_format=torch.channels_last)
    found = network(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [{"channels_in": 0}, {"width": 0}])
def test_no_channels_are_refused(options):
    with pytest.raises(ValueError, match="at least 1"):
        ResNet50(**options)
