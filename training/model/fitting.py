"""The training loop: all images are one tensor in memory, and batches are taken from it by shuffled indices."""

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn

from training.errors import TrainingError
from training.model.autoencoders import DenseAutoencoder, LinearAutoencoder
from training.model.pruning import prune
from training.model.recipes import Recipe
from training.model.scoring_rules import squared_error

_WARM_UP_SHARE = 0.1
_SHARE_BEFORE_PRUNING = 0.75  # of the epochs
_EVALUATION_BATCH = 1024

# Maximum rotation (radians), stretch in x and y, shear, shift in x and y (in half image sides): the variation of
# handwriting, or of parts in a mount.
_JITTER = (0.14, 0.08, 0.08, 0.12, 1 / 14, 1 / 14)


@dataclass(frozen=True)
class Epoch:
    """Figures of one pass over the fit part.

    Attributes:
        number: from 1.
        train_loss: mean squared error during the pass; the input is corrupted if the recipe says so.
        validation_loss: mean squared error on clean validation images; None without such images.
        seconds: wall time.
        pruned: whether the network was already pruned.
    """

    number: int
    train_loss: float
    validation_loss: float | None
    seconds: float
    pruned: bool = False


def pick_device(name: str) -> torch.device:
    """The device of that name; for ``auto`` a GPU if there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def fit(
    network: nn.Module,
    images: torch.Tensor,
    validation: torch.Tensor,
    recipe: Recipe,
    *,
    seed: int,
    device: torch.device,
    on_epoch: Callable[[Epoch], None],
    on_step: Callable[[int], None] = lambda _: None,
) -> list[Epoch]:
    """Fits a network in place. If the recipe prunes it, its hidden layers become narrower.

    Args:
        network: (N, C, H, W) → reconstruction of the same shape.
        images: (N, C, H, W) float32 in [0, 1], the fit part.
        validation: (M, C, H, W) float32 in [0, 1], may be empty; only their loss is computed.
        recipe: hyperparameters.
        seed: of shuffling and corruption; equal seeds on one machine give equal weights.
        device: where to compute.
        on_epoch: called after each epoch.
        on_step: called after each optimizer step with the number of its images.

    Raises:
        TrainingError: the loss diverged.
        ValueError: the reconstruction has another shape than the images.
    """
    if isinstance(network, LinearAutoencoder):
        epochs = [_solve(network, images, validation, seed)]
        on_epoch(epochs[0])
        return epochs
    network.to(device)
    images, validation = images.to(device), validation.to(device)
    order, corruption = torch.Generator().manual_seed(seed), torch.Generator(device).manual_seed(seed)
    unpruned = round(_SHARE_BEFORE_PRUNING * recipe.epochs) if recipe.kept_share < 1 else recipe.epochs

    def run(numbers: range) -> Iterator[Epoch]:
        """Runs some of the epochs, with their own optimizer and learning-rate schedule."""
        steps = len(numbers) * math.ceil(len(images) / recipe.batch_size)
        optimizer = _optimizer(network, recipe, device)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(recipe, steps))
        for number in numbers:
            began = time.perf_counter()
            network.train()
            total = torch.zeros((), device=device)
            shuffled = torch.randperm(len(images), generator=order).to(device)
            for indices in torch.split(shuffled, recipe.batch_size):
                clean = _jitter(images[indices], recipe, corruption)
                loss = squared_error(clean, network(_corrupt(clean, recipe, corruption))).mean()
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimizer.step()
                schedule.step()
                total += loss.detach() * len(indices)
                on_step(len(indices))
            epoch = Epoch(
                number,
                train_loss=total.item() / len(images),
                validation_loss=_mean_error(network, validation) if len(validation) else None,
                seconds=time.perf_counter() - began,
                pruned=number > unpruned,
            )
            on_epoch(epoch)
            _require_finite(epoch, recipe)
            yield epoch

    epochs = [*run(range(1, unpruned + 1))]
    if unpruned < recipe.epochs:
        assert isinstance(network, DenseAutoencoder)  # noqa: S101  Recipe allows pruning for these only
        prune(network, images, recipe.kept_share)
        epochs += run(range(unpruned + 1, recipe.epochs + 1))
    network.cpu().eval()
    return epochs


def _require_finite(epoch: Epoch, recipe: Recipe) -> None:
    if not all(map(math.isfinite, (epoch.train_loss, epoch.validation_loss or 0))):
        raise TrainingError(
            f"the loss is not finite after epoch {epoch.number}: "
            f"choose a --learning-rate below {recipe.learning_rate:g}"
        )


def _solve(network: LinearAutoencoder, images: torch.Tensor, validation: torch.Tensor, seed: int) -> Epoch:
    began = time.perf_counter()
    network.solve(images, seed=seed)
    loss = _mean_error(network, validation) if len(validation) else None
    return Epoch(1, _mean_error(network, images), loss, time.perf_counter() - began)


def _jitter(images: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Rotates, scales, shears and shifts each image a little: rare variations of normal images gain most."""
    if recipe.jitter == 0:
        return images
    maximum = recipe.jitter * torch.tensor(_JITTER, device=images.device)
    draws = 2 * torch.rand((len(images), len(_JITTER)), generator=generator, device=images.device) - 1
    rotation, stretch_x, stretch_y, shear, shift_x, shift_y = (draws * maximum).unbind(1)
    across = torch.stack([rotation.cos() * (1 + stretch_x), shear - rotation.sin(), shift_x], dim=1)
    down = torch.stack([rotation.sin(), rotation.cos() * (1 + stretch_y), shift_y], dim=1)
    grid = nn.functional.affine_grid(torch.stack([across, down], dim=1), list(images.shape), align_corners=False)
    return nn.functional.grid_sample(images, grid, padding_mode="border", align_corners=False)


def _corrupt(clean: torch.Tensor, recipe: Recipe, generator: torch.Generator) -> torch.Tensor:
    """Adds Gaussian noise, drawn on a coarse grid and upsampled bilinearly: denoising, Vincent et al., 2008."""
    if recipe.noise == 0:
        return clean
    count, channels, height, width = clean.shape
    grid = (count, channels, math.ceil(height / recipe.noise_cell), math.ceil(width / recipe.noise_cell))
    noise = recipe.noise * torch.randn(grid, generator=generator, device=clean.device)
    if recipe.noise_varies:
        noise *= torch.rand((count, 1, 1, 1), generator=generator, device=clean.device)
    return clean + nn.functional.interpolate(noise, (height, width), mode="bilinear")


def _optimizer(network: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if recipe.optimizer == "adamw" else torch.optim.Adam
    return kind(
        network.parameters(),
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        fused=device.type in {"cpu", "cuda"},
    )


def _schedule(recipe: Recipe, total: int) -> Callable[[int], float]:
    """Step → factor for the learning rate: constant, or linear warm-up over a tenth of the steps, then cosine to 0."""
    if recipe.schedule == "constant":
        return lambda _: 1.0
    warm_up = max(1, round(_WARM_UP_SHARE * total))

    def factor(step: int) -> float:
        if step < warm_up:
            return (step + 1) / warm_up
        return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))

    return factor


@torch.no_grad()
def _mean_error(network: nn.Module, images: torch.Tensor) -> float:
    network.eval()
    batches = torch.split(images, _EVALUATION_BATCH)
    return sum(squared_error(batch, network(batch)).mean().item() * len(batch) for batch in batches) / len(images)
