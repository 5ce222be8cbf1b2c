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


def test_the_same_scene_photographed_again_is_found_and_others_are_not() -> None:
    again = scene(2).point(lambda level: level * 0.9 + 5).filter(ImageFilter.GaussianBlur(1))
    first = hashes(batch(*(scene(seed) for seed in range(6))))
    second = hashes(batch(scene(20), again, scene(21)))
    assert near_duplicates(first, second) == [Pair(2, 1)]


def test_no_images_no_pairs() -> None:
    none = hashes(torch.empty(0, 1, 8, 8))
    assert near_duplicates(none, hashes(batch(scene(1)))) == []
    assert near_duplicates(hashes(batch(scene(1))), none) == []
