"""The simulation of few images, with a score that does not depend on the model, and with small data sets."""

from pathlib import Path
from statistics import mean

import numpy as np
import pytest
import torch

from app.inference.images.model_input import InputSpec
from benchmarks.accuracy.pool import Pool
from benchmarks.few_images import PLANS, Plan, Rates, Simulation, cells, groups_of, main
from tests.benchmarks.accuracy.test_folder import write_folder
from tests.benchmarks.accuracy.test_trials import LevelMethod
from tests.training.data.test_datasets import write_mnist_files
from training.data.datasets import Dataset
from training.data.images import Images
from training.errors import TrainingError
from training.model.method import Progress
from training.model.recipes import LINEAR

NORMAL, TEST = 200, 80


def simulation(groups: list[str], *, false_alarm_rate: float = 0.05, measured: int = 1000) -> Simulation[torch.Tensor]:
    """Normal images in normal/ and test/normal/ with random levels, and 20 anomalies above all of them."""
    levels = np.random.default_rng(0).permutation(NORMAL + TEST)
    levels = np.concatenate([levels, np.arange(20) + NORMAL + TEST])
    images = (levels / 1000).astype(np.float32).reshape(-1, 1, 1, 1)
    pool = Pool(
        Dataset(
            source="levels",
            normal_label="normal",
            spec=InputSpec(mode="L", height=4, width=4),
            native_size=(4, 4),
            normal=Images(images[:NORMAL]),
            groups=tuple(groups),
            test=Images(images[NORMAL:]),
            test_kinds=("normal",) * TEST + ("scratch",) * 20,
        )
    )
    method = LevelMethod()
    represented = method.represent(pool, range(len(pool)), Progress())
    return Simulation(pool, groups_of(pool), method, represented, LINEAR, false_alarm_rate, measured)


ALONE = [str(number) for number in range(NORMAL)]
IN_TENS = [f"part {number // 10}" for number in range(NORMAL)]


@pytest.mark.parametrize("plan", PLANS)
def test_the_real_rate_is_the_guaranteed_one(plan: Plan) -> None:
    """Each plan calibrates n images: a further one is above the threshold with probability ⌊α (n + 1)⌋ / (n + 1)."""
    simulated, calibrating = simulation(ALONE), {"split": 19, "cross": 60}[plan]
    draws = [simulated.measure(simulated.draw(60, seed), plan, seed) for seed in range(300)]
    rates = [each for each in draws if each]
    assert len(rates) == 300
    expected = int(0.05 * (calibrating + 1)) / (calibrating + 1)
    assert mean(each.alarmed for each in rates) == pytest.approx(expected, abs=0.006)
    assert {each.detected for each in rates} == {1}


def test_split_needs_more_images_than_cross() -> None:
    simulated = simulation(ALONE, false_alarm_rate=0.01)
    drawn = simulated.draw(100, 0)
    assert simulated.measure(drawn, "split", 0) is None
    assert simulated.measure(drawn, "cross", 0) is not None


def test_whole_groups_are_drawn_until_there_are_enough_images() -> None:
    simulated = simulation(IN_TENS)
    drawn = simulated.draw(35, 1)
    groups = [simulated.groups[position] for position in drawn]
    assert 35 <= len(drawn) < 45
    assert all(groups.count(group) == simulated.groups.count(group) for group in groups)
    assert drawn != simulated.draw(35, 2)
    with pytest.raises(TrainingError, match="275 of 280 normal images leave none"):
        simulated.draw(275, 1)


def test_a_sample_measures_the_same_rates_on_average() -> None:
    """With 30 other images, each rate is a multiple of 1/30."""
    sampled, whole = simulation(ALONE, measured=30), simulation(ALONE)

    def rates(simulated: Simulation[torch.Tensor]) -> list[float]:
        draws = [simulated.measure(simulated.draw(60, seed), "cross", seed) for seed in range(200)]
        return [each.alarmed for each in draws if each]

    assert all(rate * 30 == pytest.approx(round(rate * 30)) for rate in rates(sampled))
    assert mean(rates(sampled)) == pytest.approx(mean(rates(whole)), abs=0.01)


def test_every_group_counts_the_same() -> None:
    """One group of 100 images, and other images alone."""
    simulated = simulation(["large"] * 100 + ALONE[100:])
    drawn = list(range(100, 160))
    rates = simulated.measure(drawn, "cross", 0)
    assert rates is not None
    threshold = sorted(simulated.images[drawn].tolist())[-3]
    above = [float(level > threshold) for level in simulated.images.tolist()]
    assert rates.alarmed == pytest.approx(mean([mean(above[:100]), *above[160 : NORMAL + TEST]]))


def test_the_table_names_rates_that_are_too_high() -> None:
    high, low = Rates(0.2, 0.9), Rates(0.1, 0.7)
    assert cells([high, low, None], 0.06) == ["1 of 3", "0.150 ± 0.050", "0.800 ± 0.100", ""]
    assert cells([high, low, high, low], 0.06)[-1] == "above 0.06 by more than 2 standard errors"
    assert cells([high], 0.06)[-1] == ""
    assert cells([None], 0.06) == ["1 of 1", "", "", ""]


def test_test_images_are_grouped_by_sub_folder(tmp_path: Path) -> None:
    data = simulation(ALONE).pool.data
    of_test = [f"part-{number // 40}" for number in range(TEST)] + ["scratch"] * 20
    groups = groups_of(Pool(Dataset(**{**vars(data), "test_groups": tuple(of_test)})))
    assert groups[:NORMAL] == ALONE
    assert set(groups[NORMAL : NORMAL + TEST]) == {"test part-0", "test part-1"}
    assert len(set(groups[NORMAL + TEST :])) == 20


def test_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, *data_dir, _, _ = write_folder(tmp_path, photos=2)
    options = ["--images", "60", "--draws", "1", "--size", "32", "--by-groups"]
    assert main([folder, *data_dir, *options]) == 0
    printed, progress = capsys.readouterr()
    assert "parts, 1×32×32, recipe features, false-alarm rate 0.05" in printed
    rows = [line.strip("│ ").split() for line in printed.splitlines() if line.startswith("│")]
    assert [row[:5] for row in rows] == [["60", "│", "split", "│", "0"], ["60", "│", "cross", "│", "0"]]
    assert "60 images, draw 1 of 1" in progress


def test_mnist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_mnist_files(tmp_path / "MNIST" / "raw", count=600)
    assert main(["mnist", "--data-dir", str(tmp_path), "--images", "22", "--draws", "1"]) == 0
    printed = capsys.readouterr().out
    assert "mnist, 1×28×28, recipe default" in printed
    assert "1 of 1" in printed  # 22 images cannot be split


def test_a_folder_without_anomalies_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, folder, *data_dir, _, _ = write_folder(tmp_path)
    for file in (tmp_path / "parts" / "test" / "anomaly" / "bright").iterdir():
        file.unlink()
    assert main([folder, *data_dir]) == 1
    assert "needs normal test images and anomalies" in capsys.readouterr().err
