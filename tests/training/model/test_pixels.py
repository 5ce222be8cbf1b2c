"""The method of pixel recipes: scores of images by models that have not seen them."""

import dataclasses

import pytest
import torch

from training.data.images import Images
from training.model.fitting import Epoch
from training.model.folds import others
from training.model.method import Progress
from training.model.pixels import PixelMethod
from training.model.recipes import DEFAULT, LINEAR, Recipe
from training.model.scoring_rules import SCORING_RULES

COUNT = 24
FOLDS = [[*range(first, COUNT, 3)] for first in range(3)]
GROUPS = [str(position) for position in range(COUNT)]
SHORT = dataclasses.replace(DEFAULT, hidden=(16,), code=4, epochs=4, batch_size=8)
FEW = dataclasses.replace(LINEAR, code=4)
each_recipe = pytest.mark.parametrize("recipe", [SHORT, FEW], ids=["default", "linear"])


def method(recipe: Recipe) -> PixelMethod:
    return PixelMethod(recipe, SCORING_RULES["mse"], seed=1, device=torch.device("cpu"))


def blobs(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(COUNT, 1, 2, 2, generator=generator)
    return torch.nn.functional.interpolate(coarse, (8, 8), mode="bilinear")


@each_recipe
def test_held_out_scores_are_those_of_a_model_fitted_without_the_fold(recipe: Recipe) -> None:
    images = blobs()
    fitted, held_out = method(recipe).cross_fit(images, FOLDS, Progress())
    for fold in FOLDS:
        without = method(recipe).fit(images[others(fold, COUNT)], GROUPS[: COUNT - len(fold)], images[:0], Progress())
        assert torch.equal(held_out[fold], without.scores(images[fold]))
    whole = method(recipe).fit(images, GROUPS, images[:0], Progress())
    assert torch.equal(fitted.scores(images), whole.scores(images))
    assert held_out.mean() > fitted.scores(images).mean()


def test_no_model_has_a_wider_code_than_the_smallest_fit_part_permits() -> None:
    """A last model with a wider code than the others would find less above the threshold that their scores set."""
    images = torch.rand(COUNT, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    fitted, held_out = method(LINEAR).cross_fit(images, FOLDS, Progress())
    further = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    assert fitted.network.get_submodule("model.network.encoder").out_features == COUNT - COUNT // 3 - 1
    assert fitted.scores(further).median() > 0.7 * held_out.median()


@each_recipe
def test_scores_of_a_fold_do_not_depend_on_its_images(recipe: Recipe) -> None:
    images, changed = blobs(), blobs()
    changed[4] = torch.rand(1, 8, 8)  # in the second fold
    before, after = (method(recipe).cross_fit(each, FOLDS, Progress())[1] for each in (images, changed))
    unchanged = [at for at in FOLDS[1] if at != 4]
    assert torch.equal(before[unchanged], after[unchanged])
    assert not torch.equal(before[FOLDS[0]], after[FOLDS[0]])
    assert after[4] > before[4]


@each_recipe
def test_twins_are_scored_by_the_model_of_their_image(recipe: Recipe) -> None:
    images, twins = blobs(), (blobs() + 0.2 * torch.rand(COUNT, 1, 8, 8)).clamp(0, 1)
    of_images, of_twins = method(recipe).held_out_scores(images, twins, FOLDS)
    assert torch.equal(of_images, method(recipe).cross_fit(images, FOLDS, Progress())[1])
    without = method(recipe).fit(
        images[others(FOLDS[2], COUNT)], GROUPS[: COUNT - len(FOLDS[2])], images[:0], Progress()
    )
    assert torch.equal(of_twins[FOLDS[2]], without.scores(twins[FOLDS[2]]))


def test_images_represent_themselves() -> None:
    images = blobs()
    for held in (images, Images(images.numpy())):
        assert torch.equal(method(FEW).represent(held, (7, 2), Progress()), images[[7, 2]])


def test_scores_do_not_depend_on_the_batch() -> None:
    images = blobs()
    scores = method(FEW).fit(images, GROUPS, images[:0], Progress()).scores
    many = images.repeat(20, 1, 1, 1)
    torch.testing.assert_close(scores(many), scores(images).repeat(20))
    assert scores(images[:0]).shape == (0,)


def test_steps_are_those_of_all_models() -> None:
    steps, epochs = list[int](), list[Epoch]()
    progress = Progress(on_step=steps.append, on_epoch=epochs.append)
    images = blobs()
    method(SHORT).fit(images, GROUPS, images[:0], progress)
    assert sum(steps) == method(SHORT).steps(COUNT, 0)
    steps.clear()
    epochs.clear()
    method(SHORT).cross_fit(images, FOLDS, progress)
    assert sum(steps) == method(SHORT).steps(COUNT, len(FOLDS))
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4]  # of the model that is published
