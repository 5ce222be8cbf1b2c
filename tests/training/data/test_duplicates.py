import numpy as np
import torch
from PIL import Image, ImageFilter

from training.data.duplicates import Pair, hashes, near_duplicates


def scene(seed: int) -> Image.Image:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 6), dtype=np.uint8))
    return coarse.resize((64, 64), Image.Resampling.BICUBIC)


def batch(*images: Image.Image) -> torch.Tensor:
    return torch.stack([torch.from_numpy(np.asarray(image, np.float32) / 255)[None] for image in images])


def test_second_photograph_of_a_scene_is_found() -> None:
    similar = scene(2).point(lambda level: level * 0.9 + 5).filter(ImageFilter.GaussianBlur(1))
    first = hashes(batch(*(scene(seed) for seed in range(6))))
    second = hashes(batch(scene(20), similar, scene(21)))
    assert near_duplicates(first, second) == [Pair(2, 1)]


def test_empty_parts_have_no_pairs() -> None:
    empty = hashes(torch.empty(0, 1, 8, 8))
    assert near_duplicates(empty, hashes(batch(scene(1)))) == []
    assert near_duplicates(hashes(batch(scene(1))), empty) == []
