"""``python -m app.client``: interrupted runs are resumed."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.client.conftest import COMMAND, BusyServer, Command, Failure, images_scored, read
from tests.support import ROOT, Server


@pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
def test_killed_run_is_resumed(
    command: Command, server: Server, url: str, folder: Path, tmp_path: Path, name: str
) -> None:
    output = tmp_path / name
    concurrency, batch, total = 2, 32, 1797
    before = images_scored(server)
    kills = 0
    for rows in (100, 700):
        run = subprocess.Popen(
            [*COMMAND, str(folder), "--url", url, "-o", str(output), "--concurrency", str(concurrency)],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        while not output.exists() or output.read_bytes().count(b"\n") < rows:
            assert run.poll() is None
            time.sleep(0.002)
        run.kill()
        assert run.wait() == -signal.SIGKILL
        kills += 1
        content = output.read_bytes()
        assert content.count(b"\n") < total  # killed before the end
        output.write_bytes(content + content[-60:-2])  # adds an incomplete row
    done = command(folder, "-o", output)
    assert done.status == 0
    assert "incomplete last row" in done.err
    assert "1,797 images (" in done.err
    found = [row["path"] for row in read(output)]
    assert len(found) == len(set(found)) == total
    assert sorted(found) == sorted(map(str, folder.rglob("*.png")))
    assert images_scored(server) - before <= total + kills * concurrency * batch


def test_finished_run_scores_nothing_again(command: Command, server: Server, few: Path, tmp_path: Path) -> None:
    (few / "text.png").write_bytes(b"text")
    assert command(few, "-o", "r.csv").status == 3
    content = Path("r.csv").read_bytes()
    before = images_scored(server)
    done = command(tmp_path / "few", "few/../few/*", "-o", "r.csv", "--fail-on-anomaly")
    assert images_scored(server) == before
    assert Path("r.csv").read_bytes() == content
    assert done.status == 1  # the anomaly of the first run counts
    assert "4 images (4 from earlier runs)" in done.err


def test_earlier_results_count_in_any_position(command: Command, folder: Path, tmp_path: Path) -> None:
    """The images scored earlier are the last of the list; a run that fails at its start still counts them."""
    output = tmp_path / "r.csv"
    assert command(folder / "9", "-o", output).status == 0
    count = len(list((folder / "9").iterdir()))
    (tmp_path / "saved").touch()
    done = command(folder, "-o", output, "--save-images", tmp_path / "saved")
    assert done.status == 2
    assert done.err.splitlines()[1].startswith(f"{count} of 1,797 images are in ")


def test_ctrl_c_prints_how_to_continue(command: Command, url: str, folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "r.csv"
    run = subprocess.Popen(
        [*COMMAND, str(folder), "--url", url, "-o", str(output), "--concurrency", "1"],
        cwd=ROOT, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not output.exists() or output.read_bytes().count(b"\n") < 20:
        time.sleep(0.002)
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == 130
    count = len(read(output))
    assert 20 <= count < 1797
    assert err == f"stopped; {count:,} of 1,797 images are in {output}; run the same command again to continue\n"
    assert command(folder, "-o", output).status == 0
    assert len(read(output)) == 1797


def test_lost_service_prints_how_to_continue(command: Command, busy: BusyServer, folder: Path, tmp_path: Path) -> None:
    class AfterTenRequests(list[Failure]):
        """Lets ten requests pass, then fails all."""

        def __bool__(self) -> bool:
            return len(busy.times) > 10

        def pop(self, _: Any = -1) -> Failure:
            return Failure(None)

    busy.failures = AfterTenRequests()
    done = command(folder, "--url", busy.url, "-o", tmp_path / "r.csv", "--retries", "1")
    assert done.status == 2
    error, hint = done.err.splitlines()
    assert error.startswith(f"error: no response from {busy.url}/score: ")
    assert f" of 1,797 images are in {tmp_path / 'r.csv'}; run the same command again to continue" in hint

    without_output = command(folder, "--url", busy.url, "--retries", "0")
    assert without_output.err.count("\n") == 1  # no hint, as nothing was scored


def test_rows_of_another_model_or_false_alarm_rate_are_not_mixed(command: Command, few: Path) -> None:
    assert command(few / "five.png", "-o", "r.csv").status == 0
    content = Path("r.csv").read_bytes()
    other_model = command(few, "-o", "r.csv", "--model", "colour")
    assert (other_model.status, "rows of model digits-5, not of model colour" in other_model.err) == (2, True)
    other_rate = command(few, "-o", "r.csv", "--false-alarm-rate", "0.1")
    assert other_rate.status == 2
    assert "rows of false-alarm rate 0.05, not of false-alarm rate 0.1" in other_rate.err
    threshold = command(few, "-o", "r.csv", "--threshold", "0.5")
    assert (threshold.status, "false-alarm rate 0.05, not of threshold 0.5" in threshold.err) == (2, True)
    assert Path("r.csv").read_bytes() == content
    assert command(few, "-o", "r.csv", "--false-alarm-rate", "0.05").status == 0
    assert command(few / "five.png", "-o", "t.csv", "--threshold", "0.5").status == 0
    other_threshold = command(few, "-o", "t.csv", "--threshold", "0.25")
    assert (other_threshold.status, "of threshold 0.5, not of threshold 0.25" in other_threshold.err) == (2, True)
    assert command(few, "-o", "t.csv", "--threshold", "0.5").status == 0
