"""What people meet at the command line: help, the run as it goes on, and every mistake in one line."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from app.inference.bundles.store import ModelStore
from tests.support import NOT_COUNTED, ROOT, encode, gradient, make_bundle
from training.__main__ import main

QUICK = ["--data", "digits", "--false-alarm-rate", "0.05", "--epochs", "2", "--name", "d"]


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    """Forty grey images of mixed sizes and formats in ``parts/normal``."""
    folder = tmp_path / "parts" / "normal"
    folder.mkdir(parents=True)
    for i in range(40):
        image = gradient(12 + i % 5, 10 + i % 7).rotate(7 * i)
        (folder / f"{i:02}.png").write_bytes(encode(image, ("PNG", "JPEG", "BMP")[i % 3]))
    return tmp_path / "parts"


def options(tmp_path: Path, *words: str) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--data-dir", str(tmp_path / "data"), *words]


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Status and the one line on standard error."""
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = int(stop.code or 0)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    return status, lines[0]


class TestHelp:
    @pytest.mark.parametrize("width", ["80", "120"])
    def test_it_opens_with_examples_and_fits(
        self, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert text.index("examples:") < text.index("what to learn:")
        assert max(map(len, text.splitlines())) <= min(int(width), 100)
        assert "default: None" not in text
        assert " ".join(text.split()).count("(default: ") == text.count("\n  --")

    @pytest.mark.parametrize("word", ["list", "show", "activate", "verify", "keygen", "sign", "recalibrate"])
    def test_each_command_has_its_own(
        self, word: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        with pytest.raises(SystemExit) as stop:
            main([word, "--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert text.startswith(f"usage: python -m training {word}")
        assert ("(default: model_store)" in text) is (word != "keygen")
        assert max(map(len, text.splitlines())) <= 80


class TestTheRun:
    def test_every_epoch_is_a_line_and_a_table_closes(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main(options(tmp_path, *QUICK)) == 0
        first = ModelStore(tmp_path / "store").current("d")
        assert main(options(tmp_path, *QUICK)) == 0
        out = capsys.readouterr().out
        assert "\x1b" not in out
        number = r"[\d.,]+"
        epochs = re.findall(
            rf"^epoch   (\d)/2  train 0\.\d{{5}}  validation 0\.\d{{5}}  +{number} s  {number} images/s(.*)$",
            out,
            re.MULTILINE,
        )
        assert [number for number, _ in epochs] == ["1", "2", "1", "2"]
        assert re.fullmatch(r"  [\d.]+ s left", epochs[0][1])
        assert epochs[1][1] == ""
        manifest = ModelStore(tmp_path / "store").manifest("d")
        assert manifest.evaluation is not None
        directory = tmp_path / "store" / "d" / manifest.version
        for figure in (
            f"{manifest.threshold:.6g}",
            f"{manifest.evaluation.auroc:.4f}",
            f"{manifest.evaluation.average_precision:.4f}",
            f"{manifest.evaluation.detection_rate:.2%}",
            f"{manifest.evaluation.false_alarm_rate:.2%}",
            f"bundle    {directory}\n",
            f"images  {directory / 'report'}\n",
            f"undo      python -m training activate d {first} --store {tmp_path / 'store'}\n",
        ):
            assert figure in out

    def test_unreadable_files_are_listed_and_mixed_sizes_are_fine(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for i in range(12):
            (parts / "normal" / f"broken-{i:02}.png").write_bytes(b"nothing")
        words = ["--data", str(parts), "--false-alarm-rate", "0.1", "--epochs", "1", "--size", "16"]
        assert main(options(tmp_path, *words)) == 0
        out = capsys.readouterr().out
        assert out.count("skipped ") == 11
        assert "broken-09.png: not a readable image" in out
        assert "skipped 2 more" in out
        assert "40 normal images: " in out
        assert "no: there are no test images" in out

    def test_a_cache_that_cannot_be_written_stops_no_training(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--data", str(parts), "--false-alarm-rate", "0.1", "--epochs", "1", "--size", "16"]
        assert main([*words, "--store", str(tmp_path / "store"), "--data-dir", "/dev/null/data"]) == 0

    def test_on_a_terminal_a_bar_moves_and_ctrl_c_leaves_it_clean(self, tmp_path: Path) -> None:
        main_end, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
            cwd=ROOT, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True,
            env={**NOT_COUNTED, "TERM": "xterm-256color", "COLUMNS": "80"},
        )  # fmt: skip
        os.close(terminal)
        shown, stopping = b"", False
        for chunk in _chunks(main_end):
            shown += chunk
            if not stopping and b"epoch   3/100000" in shown and b" left" in shown:
                process.send_signal(signal.SIGINT)
                stopping = True
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130
        assert errors == "stopped; nothing was published\n"
        assert re.search(rb"fitting.*images/s.* left", shown)
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is back
        assert ModelStore(tmp_path / "store").contents() == {}


def _chunks(terminal: int) -> Iterator[bytes]:
    watchdog = threading.Timer(120, os.close, [terminal])
    watchdog.start()
    try:
        while chunk := os.read(terminal, 65536):
            yield chunk
    except OSError:  # how Linux says that the other end was closed
        return
    finally:
        watchdog.cancel()


class TestStopping:
    def test_in_a_pipe(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
            cwd=ROOT, env=NOT_COUNTED, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch   1/"):  # at once, not when a buffer is full
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "stopped; nothing was published\n")
        assert ModelStore(tmp_path / "store").contents() == {}

    def test_while_libraries_are_read(self, tmp_path: Path) -> None:
        """Interrupted in the middle of an import, numpy and scipy would fail with a page of their own."""
        for seconds in (1.0, 1.7, 2.6):
            process = subprocess.Popen(
                [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
                cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            time.sleep(seconds)
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
            assert (process.returncode, errors) == (130, "stopped; nothing was published\n")

    def test_between_the_libraries_and_the_training(self, tmp_path: Path) -> None:
        words = options(tmp_path, *QUICK)
        interrupted = (
            "import os, signal, sys; from training import __main__; from training.cli import train; "
            "train._current = lambda *_: os.kill(os.getpid(), signal.SIGINT); "
            f"sys.exit(__main__.main({words!r}))"
        )
        done = subprocess.run(
            [sys.executable, "-c", interrupted], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
        )
        assert (done.returncode, done.stderr) == (130, "stopped; nothing was published\n")

    def test_while_publishing_it_says_where_to_look(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(ModelStore, "publish", interrupted)
        assert main(options(tmp_path, *QUICK)) == 130
        assert capsys.readouterr().err == (
            f"stopped; what was published says python -m training list --store {tmp_path / 'store'}\n"
        )

    def test_a_reader_that_leaves(self, tmp_path: Path) -> None:
        ModelStore(tmp_path).publish(*make_bundle("m"))
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "training", "list", "--json", "--store", str(tmp_path)],
            cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


class TestMistakes:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--recipe", "tutorail"], "no recipe 'tutorail'; did you mean 'tutorial'?"),
            (["--recipe", "xyz"], "no recipe 'xyz'; there are default, tutorial, conv, linear"),
            (["--score", "locl-relative"], "no scoring rule 'locl-relative'; did you mean 'local-relative'?"),
            (["--guarantee", "Strict"], "did you mean 'strict'?"),
            (["--mode", "grey"], "there are auto, L, RGB"),
            (["--epohcs", "3"], "'--epohcs' is not understood; did you mean '--epochs'?"),
            (["lst"], "'lst' is not understood; did you mean 'list'?"),
            (["--store", "x", "list"], "'list' must be the first word"),
            (["digits"], "'digits' is not understood"),
            (["--false-alarm-rate", "1.5"], "'1.5' does not lie between 0 and 1"),
            (["--false-alarm-rate", "-0.1"], "'-0.1' does not lie between 0 and 1"),
            (["--false-alarm-rate", "nan"], "'nan' does not lie between 0 and 1"),
            (["--epochs"], "--epochs: expected one argument"),
        ],
    )
    def test_of_usage(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        status, line = refused(words, capsys)
        assert status == 2
        assert message in line
        assert line.endswith("(see python -m training --help)")

    @pytest.mark.parametrize(
        ("make", "words", "message"),
        [
            ((), ["--data", "{}/nothing"], "there is no folder"),
            ((), ["--data", "Digits"], "did you mean 'digits'?"),
            ((), ["--data", "a" * 300], "a" * 300),
            (("zip",), ["--data", "{}/zip"], "is a file; --data takes a folder that holds normal/"),
            (("x/notes.txt",), ["--data", "{}/x"], "has no folder normal/ with the images to learn from"),
            (("x/1.png", "x/2.jpg"), ["--data", "{}/x"], "move the 2 images that lie in"),
            (("x/normal/notes.txt",), ["--data", "{}/x"], "holds no images (.bmp, "),
            (("x/normal/1.png", "x/normal/2.png"), ["--data", "{}/x"],
             "none of the 2 images in {}/x/normal can be read; the first, 1.png: not a readable image"),
            ((), ["--data", "digits", "--false-alarm-rate", "0.001"],
             "needs at least 999 calibration images, so 1332 normal images in all; there are 149"),
            ((), ["--data", "digits", "--store", "/dev/null/store"], "cannot write to /dev/null/store/digits-5: Not a"),
            ((), ["--data", "digits", "--learning-rate", "1e30"], "ask for a --learning-rate below 1e+30"),
        ],
    )  # fmt: skip
    def test_of_data_and_places(
        self,
        make: tuple[str, ...],
        words: list[str],
        message: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
    ) -> None:
        for name in make:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(b"nothing")
        status, line = refused(options(tmp_path, *(word.replace("{}", str(tmp_path)) for word in words)), capsys)
        assert status == 1
        assert message.replace("{}", str(tmp_path)) in line
        assert ModelStore(tmp_path / "store").contents() == {}

    def test_too_few_images_say_how_many_it_takes_and_which_were_skipped(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (parts / "normal" / "00.png").write_bytes(b"nothing")
        assert main(options(tmp_path, "--data", str(parts))) == 1
        out, err = capsys.readouterr()
        assert "00.png: not a readable image" in out
        assert "so 132 normal images in all; there are 39." in err

    def test_a_refused_run_leaves_no_trace_in_the_store(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        refused(options(tmp_path, "--data", "digits", "--false-alarm-rate", "0.001"), capsys)
        assert not (tmp_path / "store").exists()

    @pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
    def test_without_network_one_line_says_where_to_place_the_files(
        self,
        source: str,
        folder: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody listens there
        status, line = refused(options(tmp_path, "--data", source), capsys)
        assert status == 1
        assert f"not in {tmp_path / 'data' / folder / 'raw'} and cannot be downloaded (Connection refused)" in line
        assert "train-images-idx3-ubyte" in line
        assert "by hand" in line

    def test_too_little_memory(self, tmp_path: Path) -> None:
        (tmp_path / "normal").mkdir()
        for i in range(30):
            Image.new("RGB", (9, 9), (200, 8 * i, 0)).save(tmp_path / "normal" / f"{i}.png")
        words = ["--data", str(tmp_path), "--size", "1024", "--false-alarm-rate", "0.1"]
        done = subprocess.run(
            ["/bin/sh", "-c", 'ulimit -v 8000000 && exec "$@"', "sh", sys.executable, "-m", "training",
             *options(tmp_path, *words)],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**NOT_COUNTED, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("error: memory is too small for recipe default")
        assert done.stderr.count("\n") == 1

    def test_what_training_needs_is_not_installed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "training.cli.train", None)
        monkeypatch.delitem(sys.modules, "training.cli.train")
        monkeypatch.delitem(sys.modules, "training.cli.parser", raising=False)
        monkeypatch.setitem(sys.modules, "rich.console", None)
        status, line = refused(["--data", "digits"], capsys)
        assert status == 1
        assert "rich.console is not installed" in line
        assert "pip install '.[training]'" in line
