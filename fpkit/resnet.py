"""ResNet-50, the network of the paper's extractor, from a random start."""

from torch import Tensor, nn
from torch.nn import functional as F

STAGES = (3, 4, 6, 3)  # bottlenecks per stage: He et al. 2016, table 1, column "50-layer"
EXPANSION = 4  # a stage hands on four times as many channels as its 3 x 3 convolutions have


class ResNet50(nn.Module):
    """Images or spectra -> pooled features of 50 layers.

    Parameters
    ----------
    channels_in : int
    width : int
        Channels of the first layer; every stage doubles them. 64 in the original, with 23.5
        million parameters; a smaller network of the same depth for a first try.

    Attributes
    ----------
    dim : int
        Length of a feature, ``32 * width``: 2048.

    Notes
    -----
    The stride of a stage sits in the 3 x 3 convolution, not in the first 1 x 1 one, as in the
    weights that are in use today. Convolutions start from a normal distribution that keeps the
    variance of gradients (He et al. 2015, fan out), batch normalisations from the identity. The
    paper starts from ImageNet instead.

    References
    ----------
    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", CVPR 2016; "Delving deep
    into rectifiers", ICCV 2015 (start).
    """

    def __init__(self, channels_in: int = 3, *, width: int = 64) -> None:
        super().__init__()
        if channels_in < 1 or width < 1:
            raise ValueError(
                f"channels_in and width must be at least 1, got {channels_in} and {width}"
            )
        self.stem = nn.Sequential(*_convolution(channels_in, width, taps=7, stride=2), nn.ReLU())
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        stages, channels = [], width
        for level, count in enumerate(STAGES):
            inner = width * 2**level
            blocks = []
            for place in range(count):
                stride = 2 if level > 0 and place == 0 else 1
                blocks.append(Bottleneck(channels, inner, stride=stride))
                channels = EXPANSION * inner
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.dim = channels
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def maps(self, x: Tensor) -> list[Tensor]:
        """What the stem and each stage hand on: five maps, each half as large as the one before.

        Parameters
        ----------
        x : Tensor, (n, channels_in, h, w)

        Returns
        -------
        list of Tensor
            (n, width, h / 2, w / 2), then (n, 4 * width, h / 4, w / 4) to
            (n, 32 * width, h / 32, w / 32), sides rounded up.
        """
        found = [self.stem(x)]
        x = self.pool(found[0])
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, h, w) -> (n, dim), the last map averaged over its places."""
        return self.maps(x)[-1].mean((2, 3))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 and 1 x 1 convolutions beside a shortcut.

    Parameters
    ----------
    channels_in, inner : int
        Channels that come in, and those of the 3 x 3 convolution; four times `inner` go out.
    stride : int
        Of the 3 x 3 convolution and of the shortcut.
    """

    def __init__(self, channels_in: int, inner: int, *, stride: int) -> None:
        super().__init__()
        channels_out = EXPANSION * inner
        self.path = nn.Sequential(
            *_convolution(channels_in, inner, taps=1),
            nn.ReLU(),
            *_convolution(inner, inner, taps=3, stride=stride),
            nn.ReLU(),
            *_convolution(inner, channels_out, taps=1),
        )
        same = stride == 1 and channels_in == channels_out
        self.shortcut = (
            nn.Identity()
            if same
            else nn.Sequential(*_convolution(channels_in, channels_out, taps=1, stride=stride))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.path(x) + self.shortcut(x))


def _convolution(
    channels_in: int, channels_out: int, *, taps: int, stride: int = 1
) -> tuple[nn.Module, nn.Module]:
    """Convolution that keeps the size (but for the stride), and its batch normalisation."""
    convolution = nn.Conv2d(
        channels_in, channels_out, taps, stride=stride, padding=taps // 2, bias=False
    )
    return convolution, nn.BatchNorm2d(channels_out)
