"""The comparison with anomalib. What needs anomalib itself skips where its environment is not installed."""

import importlib.util
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from app.inference.errors import UnsupportedFalseAlarmRate
from app.inference.images.model_input import InputSpec
from benchmarks import against_anomalib
from benchmarks.against_anomalib import Figures, Scored, judge, main, read_scores, score_with_ours, table, write_images
from benchmarks.errors import BenchmarkError
from benchmarks.peers.environments import ENVIRONMENTS, is_installed
from benchmarks.peers.servers import SERVERS
from tests.support import encode
from training.data.datasets import Dataset
from training.data.images import Images
from training.data.splitting import Partition
from training.features.backbone import load_backbone

FOLDER = SERVERS / "anomalib"
PARTS = Partition(fit=tuple(range(12)), validation=(), calibration=tuple(range(12, 32)))

needs_anomalib = pytest.mark.skipif(
    not is_installed("anomalib", ENVIRONMENTS / "anomalib"),
    reason="needs anomalib's environment, which the first run of benchmarks.against_anomalib creates",
)


def dataset() -> Dataset:
    """Smooth normal images; noise as the anomaly."""
    random = torch.Generator().manual_seed(0)
    normal = 0.5 + 0.02 * torch.rand(38, 1, 64, 64, generator=random)
    noise = torch.rand(4, 1, 64, 64, generator=random)
    return Dataset(
        source="tiny",
        normal_label="normal",
        spec=InputSpec(mode="L", height=64, width=64),
        native_size=(64, 64),
        normal=Images(normal[:32].numpy()),
        groups=tuple(map(str, range(32))),
        test=Images(torch.cat([normal[32:], noise]).numpy()),
        test_kinds=("normal",) * 6 + ("noise",) * 4,
    )


@pytest.fixture(scope="module")
def coreset() -> ModuleType:
    spec = importlib.util.spec_from_file_location("coreset", FOLDER / "coreset.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("pool", [32, 4096], ids=["pool-smaller-than-the-points", "all-in-the-pool"])
def test_coreset_is_that_of_the_plain_greedy_choice(
    coreset: ModuleType, monkeypatch: pytest.MonkeyPatch, pool: int
) -> None:
    monkeypatch.setattr(coreset, "POOL", pool)
    monkeypatch.setattr(coreset, "CHUNK", 8)
    points = torch.randn(600, 12, generator=torch.Generator().manual_seed(1)) + 30
    expected, nearest = [17], torch.full((600,), torch.inf, dtype=torch.float64)
    while len(expected) < 300:
        nearest = torch.minimum(nearest, (points.double() - points[expected[-1]]).norm(dim=1))
        expected.append(int(nearest.argmax()))
    assert coreset.farthest_points(points, 17, 300).tolist() == expected


def test_figures_of_known_scores() -> None:
    test = np.array([1.0, 50, 98, 97, 200, 300, 40])
    scored = Scored(np.arange(100.0), test, seconds_to_fit=7, seconds=np.array([0.01, 0.02, 0.9]))
    groups = [str(index) for index in range(100)]
    figures = judge(scored, groups, ("normal", "normal", "normal", "a", "a", "b", "b"))
    # The threshold at 5 % is the fifth-largest of 100 calibration scores: 95.
    assert (figures.auroc, figures.alarmed) == pytest.approx((9 / 12, 1 / 3))
    assert (figures.found, figures.ms, figures.seconds_to_fit) == (0.75, 20, 7)
    # Groups count once: three are too few for 5 %.
    with pytest.raises(UnsupportedFalseAlarmRate, match="groups of calibration images"):
        judge(scored, ["a", "b", *["c"] * 98], ("normal", "normal", "normal", "a", "a", "b", "b"))


def test_table_has_the_range_of_several_splits_and_their_number() -> None:
    one, other = Figures(0.9, 0.8, 0.05, 40, 10), Figures(0.7, 0.6, 0.07, 60, 20)
    lines = table({"a": [one, other], "b": [one]}).splitlines()
    assert lines[2] == "| a | 2 | 0.800 [0.700–0.900] | 0.700 [0.600–0.800] | 0.060 [0.050–0.070] | 50 | 15 |"
    assert lines[3] == "| b | 1 | 0.900 | 0.800 | 0.050 | 40 | 10 |"


def test_images_file_has_the_images_and_weights_that_give_our_features(tmp_path: Path) -> None:
    data = dataset()
    write_images(tmp_path / "images.npz", data)
    network = timm.create_model("tf_efficientnet_lite0", pretrained=False, features_only=True).eval()
    with np.load(tmp_path / "images.npz") as written:
        np.testing.assert_array_equal(written["normal"], data.normal[:].numpy())
        np.testing.assert_array_equal(written["test"], data.test[:].numpy())
        network.load_state_dict({name: torch.from_numpy(written[f"weight:{name}"]) for name in network.state_dict()})
        image = data.test[[-1]].expand(-1, 3, -1, -1)
        mean, std = torch.from_numpy(written["mean"]), torch.from_numpy(written["std"])
        _, _, stride_8, stride_16, _ = network((image - mean) / std)
    ours, _ = load_backbone("efficientnet_lite0").network(image)
    pooled = [torch.nn.functional.avg_pool2d(features, 3, stride=1, padding=1) for features in (stride_8, stride_16)]
    theirs = torch.cat([torch.nn.functional.adaptive_avg_pool2d(features, (4, 4)) for features in pooled], dim=1)
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)  # ours has its norms folded into the convolutions


def test_ours_scores_calibration_and_test_images_one_at_a_time() -> None:
    data = dataset()
    scored = score_with_ours(data, PARTS, seed=0)
    assert scored.calibration.shape == (20,)
    assert scored.test.shape == (10,)
    assert scored.seconds.shape == (30,)
    assert (scored.seconds > 0).all()
    assert scored.seconds_to_fit > 0
    assert scored.test[6:].min() > scored.test[:6].max()


def test_command_hands_each_split_to_anomalib_and_prints_its_scores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = []

    def brightness(command: list[str], folder: Path, variables: Mapping[str, str]) -> None:
        images, parts, scores = (Path(file) for file in command[2:5])
        commands.append((command[5:], folder, variables["OMP_NUM_THREADS"]))
        with np.load(images) as given, np.load(parts) as split:
            assert len(split["fit"]) + len(split["calibration"]) == 40
            np.savez(
                scores,
                calibration=given["normal"][split["calibration"]].mean((1, 2, 3)),
                test=given["test"].mean((1, 2, 3)),
                seconds_to_fit=3.0,
                seconds=np.full(50, 0.02),
            )

    monkeypatch.setattr(against_anomalib, "install", lambda name, folder: folder / "bin")
    monkeypatch.setattr(against_anomalib, "run_command", brightness)
    folder = image_folder(tmp_path)
    options = ["--models", "patchcore,padim", "--seeds", "2", "--coreset-ratio", "0.25"]
    assert main([str(folder), *options, "--data-dir", str(tmp_path / "cache")]) == 0
    printed = capsys.readouterr().out
    assert "split 1: 21 images to fit, 19 to calibrate, 15 to test" in printed
    assert "PatchCore, 0.25 of the features | 2 | 1.000 [1.000–1.000] | 1.000 [1.000–1.000] |" in printed
    assert "PaDiM | 2 | 1.000 [1.000–1.000]" in printed
    assert "| 20 | 3 |" in printed
    assert [command for command, *_ in commands] == [
        ["--model", model, "--seed", seed, "--threads", "1", "--coreset-ratio", "0.25"]
        for seed in "01"
        for model in ("patchcore", "padim")
    ]
    assert {(place, threads) for _, place, threads in commands} == {(FOLDER, "1")}


def test_failure_of_anomalib_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(*_: object) -> None:
        raise BenchmarkError("python models.py failed: no memory")

    monkeypatch.setattr(against_anomalib, "install", lambda name, folder: folder / "bin")
    monkeypatch.setattr(against_anomalib, "run_command", fails)
    assert main([str(image_folder(tmp_path)), "--models", "padim", "--data-dir", str(tmp_path / "cache")]) == 1
    assert "models.py failed: no memory" in capsys.readouterr().err


def test_folder_without_anomalies_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "normal").mkdir()
    (tmp_path / "normal" / "1.png").write_bytes(encode(Image.new("L", (9, 9), 1)))
    assert main([str(tmp_path), "--data-dir", str(tmp_path / "cache")]) == 1
    assert "needs normal test images and anomalies" in capsys.readouterr().err


def test_unknown_model_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["parts", "--models", "features,patchcor"])
    assert stop.value.code == 2
    assert "unknown model patchcor;" in capsys.readouterr().err


def image_folder(parent: Path) -> Path:
    random = np.random.default_rng(0)
    for name, count, level in (("normal", 40, 60), ("test/normal", 5, 50), ("test/anomaly/bright", 10, 190)):
        (parent / "parts" / name).mkdir(parents=True)
        for i in range(count):
            image = random.integers(level, level + 40, (16, 16), dtype=np.uint8)
            (parent / "parts" / name / f"{i}.png").write_bytes(encode(Image.fromarray(image)))
    return parent / "parts"


@needs_anomalib
@pytest.mark.parametrize("model", ["patchcore", "padim"])
def test_anomalib_scores_the_images_of_a_split(tmp_path: Path, model: str) -> None:
    write_images(tmp_path / "images.npz", dataset())
    np.savez(tmp_path / "split.npz", fit=np.array(PARTS.fit), calibration=np.array(PARTS.calibration))
    files = [str(tmp_path / name) for name in ("images.npz", "split.npz", "scores.npz")]
    in_environment("models.py", *files, "--model", model, "--seed=0", "--threads=1", "--coreset-ratio=0.1")
    scored = read_scores(tmp_path / "scores.npz")
    assert scored.calibration.shape == (20,)
    assert scored.seconds.shape == (30,)
    assert scored.test[6:].min() > scored.test[:6].max()


@needs_anomalib
def test_memory_bank_is_that_of_anomalib() -> None:
    in_environment(
        "-c",
        "import numpy as np, torch\n"
        "from anomalib.models.components import KCenterGreedy\n"
        "from models import memory_bank\n"
        "features = torch.randn(3000, 152, generator=torch.Generator().manual_seed(2)).relu()\n"
        "def seed(): torch.manual_seed(3); np.random.seed(3)\n"
        "seed(); expected = KCenterGreedy(features, 0.1).sample_coreset()\n"
        "seed(); assert torch.equal(memory_bank(features, 0.1), expected)\n",
    )


def in_environment(*command: str) -> None:
    python = ENVIRONMENTS / "anomalib" / "bin" / "python"
    done = subprocess.run([python, *command], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
