"""The network of ``features`` for other runtimes gives the numbers of the published one."""

import pytest
import torch

from app.inference.bundles import torchscript
from tests.training.features.test_detector import maps_of
from tests.training.features.test_extraction import TinyBackbone
from training.features.detector import FeatureAutoencoder, Scale, figures_of, fit_heads, statistics_of
from training.features.extraction import THUMBNAIL, extract, thumbnails
from training.features.whole_batch import WholeBatch
from training.model.autoencoders import LinearAutoencoder
from training.model.scope import fit_scope


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("outside", [0, 3])
def test_whole_batches_give_the_numbers_of_the_published_network(channels: int, outside: int) -> None:
    torch.manual_seed(0)
    images = torch.rand(20, channels, 40, 56)
    images[3] = 0  # out of scope
    backbone = TinyBackbone().eval().requires_grad_(requires_grad=False)
    features = extract(backbone, images[4:], range(16), threads=1)
    thumbnail = LinearAutoencoder((channels, THUMBNAIL, THUMBNAIL), 4)
    thumbnail.solve(thumbnails(images), seed=0)
    heads = fit_heads(features, seed=0)
    statistics = torch.cat([statistics_of(features.fine.float()), features.skewness[:, None]], dim=1)
    folds = [[*range(8)], [*range(8, 16)]]
    scope, _ = fit_scope(statistics, torch.full((statistics.shape[1] - 1,), 0.01), folds, torch.ones(16))
    without = torch.zeros(features.fine.shape[2:], dtype=torch.bool)
    without[:, :outside] = True
    network = FeatureAutoencoder(
        torchscript.trace(backbone, torch.zeros(1, 3, 40, 56)),
        heads,
        Scale(figures_of(maps_of(heads, features))),
        scope,
        thumbnail,
        THUMBNAIL,
        without,
    )
    published = torchscript.load_plain(torchscript.dump(network))
    whole = torchscript.compiled(WholeBatch(published, (40, 56)))
    with torch.inference_mode():
        expected, outputs = published(images), whole(images)
    assert len(outputs) == len(expected) == 5
    assert expected[4][3] > 1
    assert (expected[3][..., :outside] == 0).all()  # of images out of scope, too
    assert torch.equal(expected[2], expected[3].flatten(1).amax(1))
    for output, right in zip(outputs, expected, strict=True):
        torch.testing.assert_close(output, right, rtol=1e-4, atol=1e-5)
