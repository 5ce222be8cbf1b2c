"""``python -m app.client`` against the real service: what comes out, how it ends, how it goes on after it broke off."""

import csv
import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from app.client.bulk import Batches
from app.client.command import main
from app.client.errors import Problem, TooLarge
from tests.client.conftest import BusyServer, Refusing, images_scored
from tests.support import ROOT, Server, encode, free_port, gradient

Digits = dict[int, list[bytes]]
Command = Callable[..., "Ended"]
COMMAND = [sys.executable, "-m", "app.client"]


class Ended:
    """A run that has come to its end."""

    def __init__(self, status: int, out: bytes, err: bytes) -> None:
        self.status = status
        self.out = out.decode()
        self.err = err.decode()

    @property
    def rows(self) -> list[dict[str, str]]:
        return list(csv.DictReader(io.StringIO(self.out, newline="")))


@pytest.fixture
def command(url: str, capfdbinary: pytest.CaptureFixture[bytes]) -> Command:
    def run(*arguments: object) -> Ended:
        status = main([*map(str, arguments), *(() if "--url" in arguments else ("--url", url))])
        return Ended(status, *capfdbinary.readouterr())

    return run


@pytest.fixture
def few(digit_files: Digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two fives and a zero, in folders; the working directory is above them."""
    monkeypatch.chdir(tmp_path)
    for name, data in (
        ("five.png", digit_files[5][0]),
        ("sub/zero.png", digit_files[0][0]),
        ("b.png", digit_files[5][1]),
    ):
        path = tmp_path / "few" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return Path("few")


def read(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".csv":
        with path.open(newline="") as file:
            return list(csv.DictReader(file))
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestOutput:
    def test_csv_agrees_with_the_service(self, command: Command, server: Server, few: Path) -> None:
        ended = command(few)
        assert ended.status == 0
        assert ended.err.startswith("3 pictures in ")
        assert sorted(row["path"] for row in ended.rows) == ["few/b.png", "few/five.png", "few/sub/zero.png"]
        for row in ended.rows:
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

    def test_table(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        ended = command(few, "--format", "table")
        heading, *lines = ended.out.splitlines()
        assert heading.split() == ["verdict", "score", "p-value", "picture"]
        assert sum(line.startswith("anomaly") and "few/sub/zero.png" in line for line in lines) == 1
        assert sum(line.startswith("rejected") and "not a readable image" in line for line in lines) == 1
        assert "\x1b" not in ended.out

    def test_suffix_of_the_output_tells_its_format(self, command: Command, few: Path) -> None:
        for name in ("r.csv", "r.jsonl", "r.ndjson"):
            ended = command(few, "--output", name)
            assert (ended.status, ended.out, len(read(Path(name)))) == (0, "", 3)

    def test_model_and_rate(self, command: Command, few: Path) -> None:
        (row, *_) = command(few, "--model", "colour", "--false-alarm-rate", "0.25").rows
        assert (row["model"], row["false_alarm_rate"]) == ("colour", "0.25")

    def test_pictures(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        ended = command(few, "--save-pictures", few / "seen")
        assert ended.status == 3
        scored = {row["path"]: row for row in ended.rows if row["status"] == "scored"}
        assert len(scored) == 3
        for path, row in scored.items():
            sheet = Image.open(few / "seen" / row["verdict"] / f"{path}.png")
            assert sheet.size == (24, 8)
            assert list(sheet.crop((0, 0, 8, 8)).convert("L").tobytes()) == list(Image.open(path).tobytes())
            assert float(row["false_alarm_rate"]) == 0.05
        assert len(list((few / "seen").rglob("*.png"))) == 3
        again = command(few, "--save-pictures", few / "seen")
        assert len(again.rows) == 4  # what it saved is not scored

    def test_pictures_of_files_elsewhere_do_not_collide(self, command: Command, few: Path) -> None:
        os.chdir("few")
        ended = command("../few/five.png", "sub/../../few/sub", "--save-pictures", "../seen")
        assert ended.status == 0
        assert sorted(path.name for path in Path("../seen").rglob("*.png")) == ["five.png.png", "zero.png.png"]

    def test_a_closed_pipe_is_no_mishap(self, folder: Path, url: str) -> None:
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

    def test_a_terminal_gets_a_table_and_a_bar(self, few: Path, url: str) -> None:
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
        with subprocess.Popen(
            [*COMMAND, str(few), "--url", url], stdout=theirs, stderr=theirs, stdin=theirs, env=environment
        ) as run:
            os.close(theirs)
            seen = b""
            try:
                while chunk := os.read(ours, 4096):
                    seen += chunk
            except OSError:  # how Linux says that nobody writes any more
                pass
            os.close(ours)
        assert run.returncode == 0
        text = seen.decode()
        assert "verdict" in text
        assert "few/sub/zero.png" in text
        assert "━" in text
        assert "3/3" in text


class TestLimits:
    def test_what_is_too_much_for_one_request_is_split(
        self, command: Command, server: Server, folder: Path, tmp_path: Path
    ) -> None:
        """The service takes 8 files and 1 MiB; batches begin larger than both."""
        (tmp_path / "large").mkdir()
        for number in range(10):
            padded = encode(gradient(20 + number)) + b"\0" * 300_000  # readers stop at the PNG's end
            (tmp_path / "large" / f"{number}.png").write_bytes(padded)
        (tmp_path / "large" / "too.png").write_bytes(encode(gradient()) + b"\0" * 2**20)
        before = images_scored(server)
        ended = command(folder / "5", folder / "4", tmp_path / "large")
        assert ended.status == 3
        expected = len(list(folder.glob("[45]/*.png"))) + 11
        assert len({row["path"] for row in ended.rows}) == len(ended.rows) == expected
        (rejected,) = [row for row in ended.rows if row["status"] == "rejected"]
        assert rejected["path"].endswith("too.png")
        assert "1048576 is the limit" in rejected["error"]
        assert images_scored(server) - before == expected - 1

    def test_refused_sizes_are_not_tried_again(self) -> None:
        batches = Batches(map(Path, map(str, range(100))), max_files=32, max_bytes=10**6)
        batch = batches.take()
        assert len(batch) == 32
        batches.split(batch, TooLarge("urn:problem-type:too-many-files", "", 413, "", ""))
        assert [len(batches.take()) for _ in range(3)] == [16, 16, 16]
        batches.split(batch[:4], Problem("about:blank", "", 504, "", ""))
        assert [len(batches.take()) for _ in range(5)] == [2, 2, 16, 16, 16]

    def test_batches_hold_what_their_bytes_allow(self, tmp_path: Path) -> None:
        sizes = [10, 90, 1, 150, 5, 5]
        for number, size in enumerate(sizes):
            (tmp_path / str(number)).write_bytes(b"x" * size)
        batches = Batches((tmp_path / str(number) for number in range(6)), max_files=3, max_bytes=100)
        taken = [[int(path.name) for path in batches.take()] for _ in range(5)]
        assert taken == [[0, 1], [2], [3], [4, 5], []]

    def test_a_busy_service_is_waited_for(self, command: Command, busy: BusyServer, few: Path) -> None:
        busy.refusals = [Refusing(429, {"Retry-After": "1"}), Refusing(None), Refusing(503)]
        ended = command(few, "--url", busy.url)
        assert (ended.status, len(ended.rows)) == (0, 3)
        assert busy.pauses()[0] >= 1

    @pytest.mark.skipif(sys.platform != "linux", reason="peak memory without the parent's share is Linux's to tell")
    def test_memory_does_not_grow_with_the_pictures(self, digit_files: Digits, url: str, tmp_path: Path) -> None:
        """3,000 files of 60 MB in all, against the first 300 of them."""
        for part in range(10):
            (tmp_path / str(part)).mkdir()
            for number in range(300):
                data = digit_files[number % 10][part] + b"\0" * 20_000
                (tmp_path / str(part) / f"{number}.png").write_bytes(data)
        code = (
            "import sys; from app.client.command import main; status = main(); "
            "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0], file=sys.stderr); sys.exit(status)"
        )

        def peak_kib(path: Path) -> int:
            command = [sys.executable, "-c", code, str(path), "--url", url, "-o", str(tmp_path / f"{path.name}.csv")]
            ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            return int(ended.stderr.split()[-1])

        few, many = peak_kib(tmp_path / "0"), peak_kib(tmp_path)
        assert len(read(tmp_path / f"{tmp_path.name}.csv")) == 3000
        assert many - few < 10 * 1024


class TestEndings:
    def test_anomalies_fail_only_where_asked(self, command: Command, few: Path) -> None:
        assert command(few / "sub").status == 0
        assert command(few / "sub", "--fail-on-anomaly").status == 1
        assert command(few / "five.png", "--fail-on-anomaly").status == 0

    def test_rejected_files_are_told(self, command: Command, few: Path) -> None:
        (few / "text.png").write_bytes(b"text")
        (few / "empty.png").touch()
        ended = command(few)
        assert ended.status == 3
        assert "2 could not be scored" in ended.err
        errors = {row["path"]: row["error"] for row in ended.rows if row["status"] == "rejected"}
        assert errors["few/empty.png"] == "the file is empty"
        assert command(few, "--fail-on-anomaly").status == 1  # the anomaly weighs more
        assert command(few / "text.png", few / "empty.png").status == 3  # none could be scored

    def test_files_that_cannot_be_read_harm_no_other(
        self, command: Command, few: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole = Path.read_bytes

        def read_bytes(path: Path) -> bytes:  # permissions do not stop root, who may run this test
            if path.name == "five.png":
                raise PermissionError(13, "Permission denied")
            return whole(path)

        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        ended = command(few)
        assert (ended.status, len(ended.rows)) == (3, 3)
        assert [row["error"] for row in ended.rows if row["status"] == "rejected"] == ["Permission denied"]

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            (["--model", "nothing"], "the service has no model nothing; it has colour, digits-5"),
            (["nowhere"], "there is no nowhere"),
            (["--false-alarm-rate", "0.000001"], "needs at least 999999 calibration images"),
            (["--output", "few.csv"], "few.csv is no regular file"),
            (["--output", "gone/r.csv"], "No such file or directory: 'gone/r.csv'"),
            (["--save-pictures", "few/b.png"], "few/b.png/"),
        ],
    )
    def test_what_cannot_run_says_why_in_one_line(
        self, command: Command, few: Path, arguments: Sequence[str], words: str
    ) -> None:
        Path("few.csv").mkdir()
        ended = command(few, *arguments)
        assert ended.status == 2
        (line,) = ended.err.splitlines()
        assert line.startswith("error: ")
        assert words in line

    def test_no_service(self, command: Command, few: Path) -> None:
        address = f"http://127.0.0.1:{free_port()}"
        ended = command(few, "--url", address, "-o", "r.csv")
        assert (ended.status, ended.out) == (2, "")
        (line,) = ended.err.splitlines()
        assert "Connection refused" in line
        assert f"is a service running at {address}?" in line
        assert not Path("r.csv").exists()

    def test_keys(self, command: Command, few: Path, closed_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        assert "the service wants a key; set ANOMALY_API_KEY" in command(few, "--url", closed_url).err
        assert "does not take this key" in command(few, "--url", closed_url, "--api-key", "x").err
        assert command(few, "--url", closed_url, "--api-key", "schlüssel").status == 0
        monkeypatch.setenv("ANOMALY_API_KEY", "schlüssel")
        assert command(few, "--url", closed_url).status == 0

    def test_a_model_that_the_service_refuses(self, command: Command, few: Path, closed_url: str) -> None:
        ended = command(few, "--url", closed_url, "--api-key", "schlüssel", "--model", "broken")
        assert ended.status == 2
        assert ended.err.startswith("error: the service cannot use the model broken: ")
        assert "gone" in ended.err

    @pytest.mark.parametrize(
        ("arguments", "words"),
        [
            ([], "PATH"),
            (["a", "--url", "ftp://x"], "--url: 'ftp://x' is no http:// or https:// URL"),
            (["a", "--false-alarm-rate", "1"], "does not lie between 0 and 1"),
            (["a", "--concurrency", "0"], "at least 1"),
            (["a", "--retries", "-1"], "no whole number"),
            (["a", "--timeout", "nan"], "no positive number"),
            (["a", "--output", "r.txt"], "add --format csv or jsonl"),
            (["a", "--output", "r.csv", "--format", "table"], "a table is for people"),
        ],
    )
    def test_wrong_usage(self, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str) -> None:
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
        assert words in capsys.readouterr().err

    def test_help_names_every_exit_status(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main(["--help"])
        text = capsys.readouterr().out
        assert "exit status:" in text
        for status in ("0 ", "1 ", "2 ", "3 ", "130", "141"):
            assert f"\n  {status}" in text

    @pytest.mark.parametrize("missing", ["httpx", "rich"])
    def test_what_is_missing_is_named(self, missing: str) -> None:
        code = (
            f"import sys, runpy; sys.modules[{missing!r}] = None; runpy.run_module('app.client', run_name='__main__')"
        )
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
        assert ended.returncode == 2
        assert ended.stderr == f"error: {missing} is missing; install what the client needs: pip install httpx rich\n"


class TestGoingOn:
    @pytest.mark.parametrize("name", ["r.csv", "r.jsonl"])
    def test_a_killed_run_is_gone_on_with(
        self, command: Command, server: Server, url: str, folder: Path, tmp_path: Path, name: str
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
            assert content.count(b"\n") < total  # it was in the middle
            output.write_bytes(content + content[-60:-2])  # as if it had been writing, too
        ended = command(folder, "-o", output)
        assert ended.status == 0
        assert "half-written row" in ended.err
        assert "1,797 pictures (" in ended.err
        found = [row["path"] for row in read(output)]
        assert len(found) == len(set(found)) == total
        assert sorted(found) == sorted(map(str, folder.rglob("*.png")))
        assert images_scored(server) - before <= total + kills * concurrency * batch

    def test_a_finished_run_scores_nothing_again(
        self, command: Command, server: Server, few: Path, tmp_path: Path
    ) -> None:
        (few / "text.png").write_bytes(b"text")
        assert command(few, "-o", "r.csv").status == 3
        content = Path("r.csv").read_bytes()
        before = images_scored(server)
        ended = command(tmp_path / "few", "few/../few/*", "-o", "r.csv", "--fail-on-anomaly")
        assert images_scored(server) == before
        assert Path("r.csv").read_bytes() == content
        assert ended.status == 1  # the anomaly that the first run found
        assert "4 pictures (4 of them earlier)" in ended.err

    def test_what_earlier_runs_did_counts_wherever_it_stands(
        self, command: Command, folder: Path, tmp_path: Path
    ) -> None:
        """The earlier rows are the last of the list: a run that fails at its start knows of them all the same."""
        output = tmp_path / "r.csv"
        assert command(folder / "9", "-o", output).status == 0
        done = len(list((folder / "9").iterdir()))
        (tmp_path / "seen").touch()
        ended = command(folder, "-o", output, "--save-pictures", tmp_path / "seen")
        assert ended.status == 2
        assert ended.err.splitlines()[1].startswith(f"{done} of 1,797 pictures are in ")

    def test_ctrl_c_says_how_to_go_on(self, command: Command, url: str, folder: Path, tmp_path: Path) -> None:
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
        done = len(read(output))
        assert 20 <= done < 1797
        assert err == f"stopped; {done:,} of 1,797 pictures are in {output}; the same command goes on from there\n"
        assert command(folder, "-o", output).status == 0
        assert len(read(output)) == 1797

    def test_a_service_that_goes_away_is_told_with_how_to_go_on(
        self, command: Command, busy: BusyServer, folder: Path, tmp_path: Path
    ) -> None:
        class AfterSome(list[Refusing]):
            """Refuses for good once some requests went through."""

            def __bool__(self) -> bool:
                return len(busy.times) > 10

            def pop(self, _: Any = -1) -> Refusing:
                return Refusing(None)

        busy.refusals = AfterSome()
        ended = command(folder, "--url", busy.url, "-o", tmp_path / "r.csv", "--retries", "1")
        assert ended.status == 2
        error, how = ended.err.splitlines()
        assert error.startswith(f"error: no answer from {busy.url}/score: ")
        assert f" of 1,797 pictures are in {tmp_path / 'r.csv'}; the same command goes on from there" in how

        alone = command(folder, "--url", busy.url, "--retries", "0")
        assert alone.err.count("\n") == 1  # nothing was scored, nothing is to be gone on with

    def test_rows_of_another_model_or_rate_are_not_mixed_in(self, command: Command, few: Path) -> None:
        assert command(few / "five.png", "-o", "r.csv").status == 0
        content = Path("r.csv").read_bytes()
        other_model = command(few, "-o", "r.csv", "--model", "colour")
        assert (other_model.status, "rows of the model digits-5, not colour" in other_model.err) == (2, True)
        other_rate = command(few, "-o", "r.csv", "--false-alarm-rate", "0.1")
        assert (other_rate.status, "rows of the false-alarm rate 0.05, not 0.1" in other_rate.err) == (2, True)
        assert Path("r.csv").read_bytes() == content
        assert command(few, "-o", "r.csv", "--false-alarm-rate", "0.05").status == 0
