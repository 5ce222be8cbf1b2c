"""Features of images: their order, precision and independence of the number of threads."""

import pytest
import torch
from torch import nn

from training.features.extraction import THUMBNAIL, extract


class TinyBackbone(nn.Module):
    """Grids of stride 4 and 8."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fine = nn.Conv2d(3, 6, 3, stride=4, padding=1)
        self.deep = nn.Conv2d(6, 10, 3, stride=2, padding=1)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        fine = self.fine(images)
        return fine, self.deep(fine)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("threads", [1, 2])
def test_features_of_the_positions_in_their_order(channels: int, threads: int) -> None:
    backbone, images, steps = TinyBackbone(), torch.rand(5, channels, 32, 32), list[int]()
    found = extract(backbone, images, [4, 0, 2], threads=threads, on_step=steps.append)
    with torch.no_grad():
        fine, deep = backbone(images[[4, 0, 2]].expand(-1, 3, -1, -1))
    torch.testing.assert_close(found.fine.float(), fine, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(found.deep.float(), deep, rtol=1e-3, atol=1e-3)
    assert (found.fine.dtype, found.deep.dtype) == (torch.float16, torch.float16)
    assert found.small.shape == (3, channels, THUMBNAIL, THUMBNAIL)
    assert steps == [1, 1, 1]


def test_some_of_the_features() -> None:
    images = torch.rand(5, 1, 32, 32)
    every = extract(TinyBackbone(), images, range(5), threads=1)
    some = every[[3, 1]]
    assert (len(every), len(some), len(every[[]])) == (5, 2, 0)
    for whole, part in ((every.fine, some.fine), (every.deep, some.deep), (every.small, some.small)):
        assert torch.equal(whole[[3, 1]], part)
