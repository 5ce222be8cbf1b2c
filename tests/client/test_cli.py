"""``python -m app.client`` against the real service: output, limits and exit statuses."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from app.client.errors import Problem, TooLarge
from app.client.runs.batch_scoring import Batches
from app.client.runs.cli import main
from tests.client.conftest import COMMAND, BusyServer, Command, Digits, Failure, images_scored, read
from tests.support import ROOT, Server, encode, free_port, gradient


class TestOutput:
    def test_csv_rows_match_the_service(self, command: Command, server: Server, few: Path) -> None:
        done = command(few)
        assert done.status == 0
        assert done.err.startswith("3 images in ")
        assert sorted(row["path"] for row in done.rows) == ["few/b.png", "few/five.png", "few/sub/zero.png"]
        for row in done.rows:
            body = {"file": (few.parent / row["path"]).read_bytes()}
            answer = server.client.post("/score?include=", files=body).json()
            (result,) = answer["results"]
            for name in ("score", "mse", "p_value"):
                assert float(row[name]) == pytest.approx(result[name], rel=1e-5)
            assert (row["status"], row["verdict"]) == ("scored", result["verdict"])
            assert (float(row["threshold"]), float(row["false_alarm_rate"])) == (answer["threshold"], 0.05)
            assert (row["model"], row["version"]) == (answer["model"]["name"], answer["model"]["version"])

    def test_json_lines(self, command: Command, few: Path) -> None:
        rows = [json.loads(line) for line in command(few, "--format", "jsonl").out.splitlines()]
        assert {row["path"]: row["verdict"] for row in rows}["few/sub/zero.png"] == "anomaly"
        assert all(isinstance(row["score"], float) and isinstance(row["warnings"], list) for row in rows)
        for row in rows:
            assert bool(row["boxes"]) is (row["verdict"] == "anomaly")
            assert all(len(box) == 4 for box in row["boxes"])

    def test_table(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        done = command(few, "--format", "table")
        heading, *lines = done.out.splitlines()
        assert heading.split() == ["verdict", "score", "p-value", "image"]
        assert sum(line.startswith("anomaly") and "few/sub/zero.png" in line for line in lines) == 1
        assert sum(line.startswith("rejected") and "not a readable image" in line for line in lines) == 1
        assert "\x1b" not in done.out

    def test_format_is_derived_from_the_suffix_of_the_output(self, command: Command, few: Path) -> None:
        for name in ("r.csv", "r.jsonl", "r.ndjson"):
            done = command(few, "--output", name)
            assert (done.status, done.out, len(read(Path(name)))) == (0, "", 3)

    def test_model_and_false_alarm_rate(self, command: Command, few: Path) -> None:
        (row, *_) = command(few, "--model", "colour", "--false-alarm-rate", "0.25").rows
        assert (row["model"], row["false_alarm_rate"]) == ("colour", "0.25")

    @pytest.mark.parametrize("save", [False, True])
    def test_threshold_decides_instead_of_a_rate(self, command: Command, few: Path, tmp_path: Path, save: bool) -> None:
        options = ["--save-images", tmp_path / "saved"] if save else []
        for threshold, verdict in (("0", "anomaly"), ("1e6", "normal")):
            rows = command(few, "--threshold", threshold, *options).rows
            assert {row["verdict"] for row in rows} == {verdict}
            assert {(float(row["threshold"]), row["false_alarm_rate"]) for row in rows} == {(float(threshold), "")}

    def test_threshold_and_rate_exclude_each_other(self, few: Path, capsys: pytest.CaptureFixture[str]) -> None:
        both = ["--threshold", "1", "--false-alarm-rate", ".1"]
        for options in (["--threshold", "-1"], ["--threshold", "nan"], both):
            with pytest.raises(SystemExit) as ended:
                main([str(few), *options])
            assert ended.value.code == 2
            assert "--threshold" in capsys.readouterr().err

    def test_save_images(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        done = command(few, "--save-images", few / "saved")
        assert done.status == 3
        scored = {row["path"]: row for row in done.rows if row["status"] == "scored"}
        assert len(scored) == 3
        for path, row in scored.items():
            saved = Image.open(few / "saved" / row["verdict"] / f"{path}.png").convert("RGB")
            boxes = [tuple(map(int, box.split())) for box in row["boxes"].split("; ") if box]
            assert bool(boxes) is (row["verdict"] == "anomaly")
            expected = np.asarray(Image.open(path).convert("RGB")).copy()
            for left, top, width, height in boxes:
                expected[[top, top + height - 1], left : left + width] = (0, 229, 255)
                expected[top : top + height, [left, left + width - 1]] = (0, 229, 255)
            assert (np.asarray(saved) == expected).all()
            assert float(row["false_alarm_rate"]) == 0.05
        assert len(list((few / "saved").rglob("*.png"))) == 3
        again = command(few, "--save-images", few / "saved")
        assert len(again.rows) == 4  # saved images are not scored

    def test_save_pictures_is_the_former_name_of_save_images(self, command: Command, few: Path) -> None:
        assert command(few / "five.png", "--save-pictures", "saved").status == 0
        assert len(list(Path("saved").rglob("five.png.png"))) == 1

    def test_saved_images_of_files_elsewhere_do_not_collide(self, command: Command, few: Path) -> None:
        os.chdir("few")
        done = command("../few/five.png", "sub/../../few/sub", "--save-images", "../saved")
        assert done.status == 0
        assert sorted(path.name for path in Path("../saved").rglob("*.png")) == ["five.png.png", "zero.png.png"]

    def test_closed_pipe_is_silent(self, folder: Path, url: str) -> None:
        run = subprocess.Popen(
            [*COMMAND, str(folder), "--url", url], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert run.stdout is not None
        assert run.stderr is not None
        run.stdout.readline()
        run.stdout.close()
        assert run.wait(60) == 141
        assert run.stderr.read() == b""
        run.stderr.close()

    def test_table_and_progress_bar_on_a_terminal(self, few: Path, url: str) -> None:
        terminal, child_end = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [*COMMAND, str(few), "--url", url], stdout=child_end, stderr=child_end, stdin=child_end, env=environment
        ) as run:
            os.close(child_end)
            output = b""
            try:
                while chunk := os.read(terminal, 4096):
                    output += chunk
            except OSError:  # EIO: Linux, after the last writer has closed
                pass
            os.close(terminal)
        assert run.returncode == 0
        text = output.decode()
        assert "verdict" in text
        assert "few/sub/zero.png" in text
        assert "━" in text
        assert "3/3" in text


class TestLimits:
    def test_too_large_batches_are_split(self, command: Command, server: Server, folder: Path, tmp_path: Path) -> None:
        """The service accepts 8 files and 1 MiB per request; the first batches exceed both."""
        (tmp_path / "large").mkdir()
        for number in range(10):
            padded = encode(gradient(20 + number)) + b"\0" * 300_000  # decoders stop at the end of the PNG
            (tmp_path / "large" / f"{number}.png").write_bytes(padded)
        (tmp_path / "large" / "oversized.png").write_bytes(encode(gradient()) + b"\0" * 2**20)
        before = images_scored(server)
        done = command(folder / "5", folder / "4", tmp_path / "large")
        assert done.status == 3
        expected = len(list(folder.glob("[45]/*.png"))) + 11
        assert len({row["path"] for row in done.rows}) == len(done.rows) == expected
        (rejected,) = [row for row in done.rows if row["status"] == "rejected"]
        assert rejected["path"].endswith("oversized.png")
        assert "1048576 is the limit" in rejected["error"]
        assert images_scored(server) - before == expected - 1

    def test_split_lowers_the_batch_limits(self) -> None:
        batches = Batches(map(Path, map(str, range(100))), max_files=32, max_bytes=10**6)
        batch = batches.take()
        assert len(batch) == 32
        batches.split(batch, TooLarge("urn:problem-type:too-many-files", "", 413, "", ""))
        assert [len(batches.take()) for _ in range(3)] == [16, 16, 16]
        batches.split(batch[:4], Problem("about:blank", "", 504, "", ""))
        assert [len(batches.take()) for _ in range(5)] == [2, 2, 16, 16, 16]

    def test_batches_respect_the_byte_limit(self, tmp_path: Path) -> None:
        sizes = [10, 90, 1, 150, 5, 5]
        for number, size in enumerate(sizes):
            (tmp_path / str(number)).write_bytes(b"x" * size)
        batches = Batches((tmp_path / str(number) for number in range(6)), max_files=3, max_bytes=100)
        taken = [[int(path.name) for path in batches.take()] for _ in range(5)]
        assert taken == [[0, 1], [2], [3], [4, 5], []]

    def test_busy_service_is_retried(self, command: Command, busy: BusyServer, few: Path) -> None:
        busy.failures = [Failure(429, {"Retry-After": "1"}), Failure(None), Failure(503)]
        done = command(few, "--url", busy.url)
        assert (done.status, len(done.rows)) == (0, 3)
        assert busy.delays()[0] >= 1

    @pytest.mark.skipif(sys.platform != "linux", reason="VmHWM, the peak memory of one process, is Linux only")
    def test_memory_does_not_grow_with_the_number_of_images(
        self, digit_files: Digits, url: str, tmp_path: Path
    ) -> None:
        """Compares 3,000 files, 60 MB in total, with the first 300 of them."""
        for part in range(10):
            (tmp_path / str(part)).mkdir()
            for number in range(300):
                data = digit_files[number % 10][part] + b"\0" * 20_000
                (tmp_path / str(part) / f"{number}.png").write_bytes(data)
        code = (
            "import sys; from app.client.runs.cli import main; status = main(); "
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(status)"
        )

        def peak_kib(path: Path) -> int:
            command = [sys.executable, "-c", code, str(path), "--url", url, "-o", str(tmp_path / f"{path.name}.csv")]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            return int(done.stderr.split()[-1])

        few, many = peak_kib(tmp_path / "0"), peak_kib(tmp_path)
        assert len(read(tmp_path / f"{tmp_path.name}.csv")) == 3000
        assert many - few < 10 * 1024


class TestExitStatus:
    def test_fail_on_anomaly(self, command: Command, few: Path) -> None:
        assert command(few / "sub").status == 0
        assert command(few / "sub", "--fail-on-anomaly").status == 1
        assert command(few / "five.png", "--fail-on-anomaly").status == 0

    def test_rejected_files(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        (few / "empty.png").touch()
        done = command(few)
        assert done.status == 3
        assert "2 could not be scored" in done.err
        errors = {row["path"]: row["error"] for row in done.rows if row["status"] == "rejected"}
        assert errors["few/empty.png"] == "the file is empty"
        assert command(few, "--fail-on-anomaly").status == 1  # an anomaly takes precedence
        assert command(few / "text.png", few / "empty.png").status == 3  # no image could be scored

    def test_files_that_are_not_looked_at_are_counted(self, command: Command, few: Path) -> None:
        for name in ("a.psd", "b.psd", "notes.txt", "._five.png", "Thumbs.db"):
            (few / name).write_bytes(b"anything")
        done = command(few)
        assert (done.status, len(done.rows)) == (0, 3)
        assert done.err.splitlines()[1:] == [
            "3 files not looked at: .psd 2, .txt 1",
            "2 hidden and system entries passed over",
        ]

    def test_unreadable_file_does_not_stop_the_run(
        self, command: Command, few: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        original = Path.read_bytes

        def read_bytes(path: Path) -> bytes:  # mocked, because root ignores file permissions
            if path.name == "five.png":
                raise PermissionError(13, "Permission denied")
            return original(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        done = command(few)
        assert (done.status, len(done.rows)) == (3, 3)
        assert [row["error"] for row in done.rows if row["status"] == "rejected"] == ["Permission denied"]

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--model", "nothing"], "unknown model nothing; available: colour, digits-5"),
            (["nowhere"], "nowhere does not exist"),
            (["--false-alarm-rate", "0.000001"], "needs at least 999999 calibration images"),
            (["--output", "few.csv"], "few.csv is not a regular file"),
            (["--output", "gone/r.csv"], "No such file or directory: 'gone/r.csv'"),
            (["--save-images", "few/b.png"], "few/b.png/"),
        ],
    )
    def test_cannot_run_is_one_line_with_the_reason(
        self, command: Command, few: Path, arguments: Sequence[str], message: str
    ) -> None:
        Path("few.csv").mkdir()
        done = command(few, *arguments)
        assert done.status == 2
        (line,) = done.err.splitlines()
        assert line.startswith("error: ")
        assert message in line

    def test_unreachable_service(self, command: Command, few: Path) -> None:
        address = f"http://127.0.0.1:{free_port()}"
        done = command(few, "--url", address, "-o", "r.csv")
        assert (done.status, done.out) == (2, "")
        (line,) = done.err.splitlines()
        assert "Connection refused" in line
        assert f"is a service running at {address}?" in line
        assert not Path("r.csv").exists()

    def test_api_keys(self, command: Command, few: Path, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "the service requires an API key; set ANOMALY_API_KEY" in command(few, "--url", closed_url).err
        assert "the API key is not valid; set" in command(few, "--url", closed_url, "--api-key", "x").err
        assert command(few, "--url", closed_url, "--api-key", "schlüssel").status == 0
        monkeypatch.setenv("ANOMALY_API_KEY", "schlüssel")
        assert command(few, "--url", closed_url).status == 0

    def test_refused_model(self, command: Command, few: Path, closed_url: str) -> None:
        done = command(few, "--url", closed_url, "--api-key", "schlüssel", "--model", "broken")
        assert done.status == 2
        assert done.err.startswith("error: the service cannot load the model broken: ")
        assert "broken/CURRENT names a version that is not in the store" in done.err

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ([], "PATH"),
            (["a", "--url", "ftp://x"], "--url: 'ftp://x' is not an http:// or https:// URL"),
            (["a", "--false-alarm-rate", "1"], "not a number between 0 and 1"),
            (["a", "--concurrency", "0"], "at least 1"),
            (["a", "--retries", "-1"], "not a non-negative integer"),
            (["a", "--timeout", "nan"], "not a positive number"),
            (["a", "--output", "r.txt"], "add --format csv or jsonl"),
            (["a", "--output", "r.csv", "--format", "table"], "does not support the table format"),
            (["--modl", "x", "a"], "'--modl' is not understood; did you mean '--model'?"),
            (["a", "--fail_on_anomaly"], "'--fail_on_anomaly' is not understood; did you mean '--fail-on-anomaly'?"),
        ],
    )
    def test_wrong_usage(self, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert message in line
        assert line.endswith("(see python -m app.client --help)")

    def test_help_lists_every_exit_status(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        assert "exit status:" in text
        for status in ("0 ", "1 ", "2 ", "3 ", "130", "141"):
            assert f"\n  {status}" in text

    @pytest.mark.parametrize("missing", ["httpx", "rich"])
    def test_missing_package_is_named(self, missing: str) -> None:
        code = (
            f"import sys, runpy; sys.modules[{missing!r}] = None; runpy.run_module('app.client', run_name='__main__')"
        )
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr == f"error: {missing} is not installed; run: pip install httpx rich\n"
