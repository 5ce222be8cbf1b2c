"""Compares our training loop with the tutorial's, with equal network, epochs and batch size, and one thread each.

    python -m benchmarks.training_speed --data-dir data

The tutorial's loop is written as is common: a data set of images, ``ToTensor`` for each item, a ``DataLoader``,
``nn.MSELoss`` and Adam, and validation after each epoch. Its network returns (B, 28, 28) for (B, 1, 28, 28), so the
loss is broadcast to (B, B, 28, 28). The fair comparison is the corrected loop, without this mistake.
"""

import argparse
import dataclasses
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, random_split
from torchvision import transforms
from torchvision.datasets import MNIST

from training.model.autoencoders import build
from training.model.fitting import fit
from training.model.recipes import TUTORIAL

_DIGIT = 5
_SIDE = 28


def tutorial_loop(data_dir: Path, epochs: int, *, corrected: bool) -> float:
    """The duration of the tutorial's loop in seconds, without the setup of data set and loaders."""
    mnist = MNIST(str(data_dir), train=True, transform=transforms.ToTensor())
    fives = Subset(mnist, (mnist.targets == _DIGIT).nonzero().flatten().tolist())
    size = int(0.8 * len(fives))
    train, validation = random_split(fives, [size, len(fives) - size], generator=torch.Generator().manual_seed(1337))
    train_loader = DataLoader(train, batch_size=TUTORIAL.batch_size, shuffle=True)
    validation_loader = DataLoader(validation, batch_size=TUTORIAL.batch_size)
    torch.manual_seed(1337)
    network = build(TUTORIAL, (1, _SIDE, _SIDE), size)
    criterion = nn.MSELoss()
    optimizer = torch.optim.Adam(network.parameters(), lr=TUTORIAL.learning_rate)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        reconstruction = network(images)
        loss: torch.Tensor = criterion(reconstruction if corrected else reconstruction.view(-1, _SIDE, _SIDE), images)
        return loss

    began = time.perf_counter()
    for _ in range(epochs):
        network.train()
        total = 0.0
        for images, _labels in train_loader:
            optimizer.zero_grad()
            loss = loss_of(images)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total += loss.item() * images.size(0)
        network.eval()
        with torch.no_grad():
            for images, _labels in validation_loader:
                total += loss_of(images).item() * images.size(0)
    return time.perf_counter() - began


def our_loop(images: torch.Tensor, epochs: int) -> float:
    """The duration of the same training with training.model.fitting, in seconds."""
    size = int(0.8 * len(images))
    torch.manual_seed(1337)
    network = build(TUTORIAL, (1, _SIDE, _SIDE), size)
    recipe = dataclasses.replace(TUTORIAL, epochs=epochs)
    began = time.perf_counter()
    fit(
        network,
        images[:size],
        images[size:],
        recipe,
        seed=1337,
        device=torch.device("cpu"),
        on_epoch=lambda _: None,
    )
    return time.perf_counter() - began


def main() -> None:
    """Prints seconds per epoch and ratios: medians, minimum and maximum of all rounds."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_speed", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder that contains MNIST")
    parser.add_argument("--epochs", type=int, default=3, help="epochs of each run")
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds; each runs all loops")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="Using a target size")
    train = MNIST(str(options.data_dir), train=True)
    images = train.data[train.targets == _DIGIT][:, None] / 255
    loops: dict[str, Callable[[], float]] = {
        "ours": lambda: our_loop(images, options.epochs),
        "tutorial, corrected": lambda: tutorial_loop(options.data_dir, options.epochs, corrected=True),
        "tutorial, as written": lambda: tutorial_loop(options.data_dir, options.epochs, corrected=False),
    }
    our_loop(images, 1)  # warm
    rounds = [{name: loop() / options.epochs for name, loop in loops.items()} for _ in range(options.rounds)]
    for name in loops:
        seconds = [each[name] for each in rounds]
        ratios = [each[name] / each["ours"] for each in rounds]
        print(
            f"{name:22} {median(seconds):.3f} s per epoch; "
            f"{median(ratios):.2f} × ours (from {min(ratios):.2f} to {max(ratios):.2f})"
        )


if __name__ == "__main__":
    main()
