"""Synthetic defects: each kind can be seen, and is in its place."""

import pytest
import torch
from torch import nn

from training.selection.defects import with_defects

KINDS = ("patch of another image", "spot", "scratch", "foreign texture", "blur", "grain")


def textures(count: int, channels: int, height: int, width: int, seed: int = 0) -> torch.Tensor:
    """Images with fine structure, so that even a blur changes them."""
    values = torch.rand(count, channels, -(-height // 2), -(-width // 2), generator=torch.Generator().manual_seed(seed))
    return nn.functional.interpolate(values, (height, width))


def changes(images: torch.Tensor, **options: int) -> torch.Tensor:
    """(N, H, W) largest change of a channel."""
    return (with_defects(images, options.get("seed", 1), local=bool(options.get("local", 1))) - images).abs().amax(1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("kind", range(len(KINDS)), ids=KINDS)
def test_each_local_kind_is_visible_and_local(kind: int, channels: int) -> None:
    found = changes(textures(60, channels, 96, 128))[kind :: len(KINDS)]
    assert len(found) == 10
    assert found.flatten(1).amax(1).min() > 0.04
    assert 0 < (found > 0.02).float().mean((1, 2)).max() < 0.1


@pytest.mark.parametrize("local", [True, False])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 8, 8), (1, 5, 9), (3, 33, 50), (1, 64, 48)])
def test_every_image_has_a_defect_and_keeps_its_range(shape: tuple[int, int, int], local: bool) -> None:
    images = textures(36, *shape)
    before = images.clone()
    defective = with_defects(images, 2, local=local)
    assert torch.equal(images, before)
    assert defective.shape == images.shape
    assert defective.dtype == torch.float32
    assert (defective.min() >= 0) & (defective.max() <= 1)
    assert ((defective - images).abs().flatten(1).sum(1) > 0.02).all()  # a part of a pixel would not be seen


def test_small_images_show_a_wrong_shape() -> None:
    """A large region is turned or mirrored: its values are those of the image, in other places."""
    found = changes(textures(30, 1, 16, 16), local=0)
    share = (found > 0.02).float().mean((1, 2))
    assert share.min() > 0.1
    assert share.mean() > 0.25


def test_defects_depend_on_the_seed_only() -> None:
    images = textures(12, 3, 20, 20)
    assert torch.equal(with_defects(images, 5), with_defects(images, 5))
    different = with_defects(images, 5) != with_defects(images, 6)
    assert different.flatten(1).any(1).all()


def test_flat_and_single_images_have_defects_too() -> None:
    """On a flat image, a patch and a blur cannot be seen; the other kinds can."""
    flat = torch.full((12, 1, 32, 32), 0.5)
    visible = changes(flat).flatten(1).amax(1) > 0.03
    assert visible.tolist() == [False, True, True, True, False, True] * 2
    assert changes(textures(1, 1, 8, 8)).max() > 0
    for value in (0.0, 1.0):
        defective = with_defects(torch.full((6, 3, 16, 16), value), 1)
        assert (defective.min() >= 0) & (defective.max() <= 1)
