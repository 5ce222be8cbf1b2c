"""Changed copies: small turns about the centre and changes of brightness, the same for the same position and seed."""

import math

import torch

from training.features.variation import Varied, turned


def test_quarter_turn_of_a_square_moves_every_pixel() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(turned(images, math.pi / 2), images.rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_turn_of_an_oblong_image_keeps_distances() -> None:
    image = torch.zeros(1, 1, 41, 81)
    image[..., 20, 70] = 1  # 30 to the right of the centre
    row, column = divmod(int(turned(image, math.radians(20)).argmax()), 81)
    assert abs(math.hypot(row - 20, column - 40) - 30) < 1
    assert abs(math.degrees(math.atan2(20 - row, column - 40)) - 20) < 2


def test_corners_are_filled_from_the_image() -> None:
    assert turned(torch.full((1, 1, 32, 32), 0.5), math.radians(3)).min() > 0.49


def test_copies_differ_a_little_from_their_images_and_from_each_other() -> None:
    ramp = torch.linspace(0.2, 0.8, 64).expand(20, 1, 64, 64)
    copies = Varied(ramp, seed=1)[list(range(20))]
    changes = copies.mean((1, 2, 3)) / ramp.mean((1, 2, 3))
    assert ((changes > 0.89) & (changes < 1.11)).all()
    assert changes.std() > 0.02
    assert copies.min() >= 0
    assert copies.max() <= 1
    slopes = (copies[:, 0, 56] - copies[:, 0, 8])[:, 32]  # a turn makes the ramp vary down the image, too
    assert slopes.abs().max() > 0.005


def test_a_copy_depends_on_its_position_and_the_seed_alone() -> None:
    images = torch.rand(5, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    copies = Varied(images, seed=1)
    assert len(copies) == 5
    assert torch.equal(copies[[3, 1]], copies[[0, 1, 2, 3]][[3, 1]])
    assert not torch.equal(copies[[3]], Varied(images, seed=2)[[3]])
