"""The most suspicious normal images."""

import numpy as np
import torch

from training.data.images import Images
from training.suspects import most_suspicious


def test_the_ten_highest_scores_with_their_images() -> None:
    pixels = np.arange(30, dtype=np.uint8).reshape(30, 1, 1, 1)
    scores = [float((7 * number) % 30) for number in range(30)]
    suspects = most_suspicious(Images(pixels), [f"{number}.png" for number in range(30)], scores)
    assert [suspect.score for suspect in suspects] == [29, 28, 27, 26, 25, 24, 23, 22, 21, 20]
    for name, score, image in suspects:
        number = int(name.removesuffix(".png"))
        assert scores[number] == score
        assert torch.equal(image, torch.full((1, 1, 1), number / 255))


def test_fewer_than_ten_images() -> None:
    suspects = most_suspicious(Images(np.zeros((2, 1, 1, 1), np.uint8)), ["a", "b"], [1, 2])
    assert [suspect.name for suspect in suspects] == ["b", "a"]
