"""Layouts of image data: what is normal, what is a test image of which kind, and what is said about the rest."""

import shlex
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from training.data import layouts
from training.data.labelled_files import LabelledFiles
from training.errors import TrainingError


def write(root: Path, **counts: int) -> Path:
    """Empty image files; ``train__good=3`` writes ``train/good/0.png`` to ``2.png``."""
    for place, count in counts.items():
        folder = root / place.replace("__", "/")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / f"{number}.png").touch()
    return root


def kinds(files: LabelledFiles) -> dict[str, int]:
    return dict(Counter(file.kind for file in files.test))


def names(files: LabelledFiles) -> list[str]:
    return [files.name_of(file) for file in files.normal]


def test_own_layout(tmp_path: Path) -> None:
    write(tmp_path, normal=1, normal__a=2, test__normal=2, test__anomaly__hole=3, test__anomaly=1)
    files = layouts.read(tmp_path)
    assert names(files) == ["normal/0.png", "normal/a/0.png", "normal/a/1.png"]
    assert [str(file.place) for file in files.normal] == ["0.png", "a/0.png", "a/1.png"]
    assert kinds(files) == {"normal": 2, "anomaly": 1, "hole": 3}
    assert [file.kind for file in files.test[:2]] == ["normal", "normal"]
    assert files.remarks == ()


def test_mvtec_layout_never_takes_masks_for_images(tmp_path: Path) -> None:
    write(tmp_path, train__good=5, test__good=2, test__crack=3, test__cut__deep=1)
    write(tmp_path, ground_truth__crack=3, test__ground_truth__crack=3)
    files = layouts.read(tmp_path)
    assert names(files) == [f"train/good/{number}.png" for number in range(5)]
    assert kinds(files) == {"normal": 2, "crack": 3, "cut": 1}
    assert files.remarks == ()


def test_lookout_layout_evaluates_on_the_anomalies_of_train(tmp_path: Path) -> None:
    write(tmp_path, train__normal=5, train__anomaly=4, test__normal=2, test__anomaly=3)
    files = layouts.read(tmp_path)
    assert names(files) == [f"train/normal/{number}.png" for number in range(5)]
    assert kinds(files) == {"normal": 2, "anomaly": 7}
    assert files.remarks == ()


def test_anomalies_beside_the_normal_images_are_test_images(tmp_path: Path) -> None:
    assert kinds(layouts.read(write(tmp_path, Normal=5, Anomaly=2, Anomaly__dent=1, Masks=3))) == {
        "anomaly": 2,
        "dent": 1,
    }


def test_a_kind_cannot_be_called_normal(tmp_path: Path) -> None:
    assert kinds(layouts.read(write(tmp_path, normal=2, test__anomaly__normal=2))) == {"anomaly": 2}


def test_flat_folder_is_all_normal(tmp_path: Path) -> None:
    write(tmp_path / "flat", **{".": 3})
    (tmp_path / "flat" / "notes.txt").touch()
    files = layouts.read(tmp_path / "flat")
    assert names(files) == ["0.png", "1.png", "2.png"]
    assert [str(file.place) for file in files.normal] == ["0.png", "1.png", "2.png"]
    assert (files.test, files.remarks) == ((), ("1 file not looked at: .txt 1",))


def test_images_in_places_that_the_layout_does_not_use_are_counted(tmp_path: Path) -> None:
    write(tmp_path, normal=3, extra=2, train__more=1, test=1, **{".": 1})
    files = layouts.read(tmp_path)
    (line,) = files.remarks
    assert line == f"5 images in other places of {tmp_path} are not used: extra/ 2, directly in it 1, test/ 1, train/ 1"
    assert len(files.normal) == 3
    assert files.test == ()


def test_clutter_is_passed_over_and_counted(tmp_path: Path) -> None:
    write(tmp_path, normal=3, test__anomaly__hole=1)
    for place in ("normal/.ipynb_checkpoints", "normal/@eaDir", "test/anomaly/.x", "test/.x"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "0.png").touch()
    (tmp_path / "normal" / "._0.png").touch()
    files = layouts.read(tmp_path)
    assert len(files.normal) == 3
    assert kinds(files) == {"hole": 1}
    assert files.remarks == ("5 hidden and system entries passed over",)


def test_linked_folders_are_read_once_and_a_link_to_the_root_mixes_nothing(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", monday=60, tuesday=60)
    parts = write(tmp_path / "parts", normal=0, test__anomaly__hole=2)
    for day in ("monday", "tuesday"):
        (parts / "normal" / day).symlink_to(tmp_path / "elsewhere" / day)
    (parts / "normal" / "loop").symlink_to(parts)
    (parts / "normal" / "again").symlink_to(parts / "normal")
    files = layouts.read(parts)
    assert len(files.normal) == 120
    assert {file.place.parent.name for file in files.normal} == {"monday", "tuesday"}
    assert kinds(files) == {"hole": 2}
    assert files.remarks == ()


def test_a_linked_folder_of_normal_images(tmp_path: Path) -> None:
    write(tmp_path / "all", **{".": 3})
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "normal").symlink_to(tmp_path / "all")
    assert names(layouts.read(tmp_path / "parts")) == ["normal/0.png", "normal/1.png", "normal/2.png"]


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        ({"ok": 5, "scratched": 9}, ["scratched/ 9, ok/ 5. ", "If the normal images are those in {}/ok: "]),
        ({"day1": 5, "day2": 9}, ["If the normal images are those in {}/day2: "]),
        ({"box__ok": 5, "box__bad": 9}, ["If the normal images are those in {}/box/ok: "]),
        ({".": 5, "bad": 3}, ["directly in it 5, bad/ 3. ", "If the normal images are those directly in {}: "]),
        ({"bottle__train__good": 4, "cable__train__good": 5}, ["bottle/ 4. ", "For one data set: "]),
    ],
)
def test_an_ambiguous_folder_is_an_error_whose_commands_work(
    counts: dict[str, int], expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = write(tmp_path / "my parts", **counts)
    with pytest.raises(TrainingError) as caught:
        layouts.read(root)
    text = str(caught.value)
    assert "\n" not in text
    for part in expected:
        assert part.replace("{}", str(root)) in text
    commands = text.split("`")[1::2]
    for number, command in enumerate(commands):
        folder = tmp_path / str(number)
        folder.mkdir()
        prepare, _, training = command.rpartition("python -m training --data ")
        subprocess.run(f"{prepare} true", shell=True, check=True, cwd=folder)
        (data,) = shlex.split(training)
        assert layouts.read(folder / data).normal
    if len(commands) == 2:
        assert len(layouts.read(tmp_path / "1" / data).normal) == sum(counts.values())


@pytest.mark.parametrize("make", [{}, {"normal": 0}, {"train__good": 0}])
def test_a_folder_without_images_is_an_error_that_counts_other_files(make: dict[str, int], tmp_path: Path) -> None:
    write(tmp_path, **make)
    folder = tmp_path / next(iter(make), "").replace("__", "/")
    for number in range(3):
        (folder / f"{number}.psd").touch()
    with pytest.raises(TrainingError, match=r"contains no images \(.*\); 3 files not looked at: \.psd 3$"):
        layouts.read(tmp_path)


def test_images_for_a_threshold_may_lie_in_any_folders(tmp_path: Path) -> None:
    files = layouts.read_normal(write(tmp_path / "new", day1=2, day2=3, **{".": 1}))
    assert [str(file.place) for file in files.normal] == [
        "0.png", "day1/0.png", "day1/1.png", "day2/0.png", "day2/1.png", "day2/2.png",
    ]  # fmt: skip
    known = write(tmp_path / "known", train__good=2, test__good=1, test__crack=1, extra=1)
    assert names(layouts.read_normal(known)) == ["train/good/0.png", "train/good/1.png"]
