"""The command line of training: help, output of a run, Ctrl-C, and errors in one line."""

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
from tests.deep_images import noise, png
from tests.support import ROOT, WITHOUT_COVERAGE, encode, gradient, make_bundle
from training.__main__ import main

QUICK = ["--data", "digits", "--false-alarm-rate", "0.05", "--epochs", "2", "--name", "d", "--calibration", "split"]
FOLDER = ["--recipe", "default", "--calibration", "split", "--false-alarm-rate", "0.1", "--epochs", "1", "--size", "16"]


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


def error_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Exit status, and the only line on standard error."""
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
    def test_begins_with_examples_and_fits_the_terminal(
        self, width: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", width)
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        text = capsys.readouterr().out
        assert text.index("examples:") < text.index("training data:")
        assert max(map(len, text.splitlines())) <= min(int(width), 100)
        assert "default: None" not in text
        assert " ".join(text.split()).count("(default: ") == text.count("\n  --")

    @pytest.mark.parametrize("word", ["list", "show", "activate", "verify", "keygen", "sign", "recalibrate"])
    def test_each_command_has_help(
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
        assert text.splitlines()[-1].startswith("  -h, --help ")


class TestRun:
    def test_output_has_a_line_per_epoch_and_a_table(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
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
            f"charts    {directory / 'report'}\n",
            f"undo      python -m training activate d {first} --store {tmp_path / 'store'}\n",
        ):
            assert figure in out

    def test_unreadable_files_are_listed_and_skipped(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for i in range(12):
            (parts / "normal" / f"broken-{i:02}.png").write_bytes(b"nothing")
        words = ["--data", str(parts), *FOLDER]
        assert main(options(tmp_path, *words)) == 0
        out = capsys.readouterr().out
        assert out.count("skipped ") == 11
        assert "broken-09.png: not a readable image" in out
        assert "skipped 2 more" in out
        assert "40 normal images: " in out
        assert "none: there are no test images" in out

    def test_levels_and_background_are_published_and_what_decoding_changed_is_printed(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "deep" / "normal"
        folder.mkdir(parents=True)
        for i in range(40):
            (folder / f"{i}.png").write_bytes(png(noise(2, 12)))
        words = ["--data", str(folder.parent), *FOLDER, "--background", "White", "--name", "deep"]
        assert main(options(tmp_path, *words)) == 0
        manifest = ModelStore(tmp_path / "store").manifest("deep")
        assert (manifest.input.levels, manifest.input.background) == ((0, 4095), "white")
        out = capsys.readouterr().out
        assert "grey, 16 × 16, fit stretch, levels 0 to 4,095, background white\n" in out
        assert "note 40 normal images: resized from 8×8 to 16×16\n" in out
        assert "note 40 normal images: transparency was flattened onto white\n" in out
        assert main(options(tmp_path, *words, "--levels=-64:2000.5")) == 0
        assert ModelStore(tmp_path / "store").manifest("deep").input.levels == (-64, 2000.5)

    def test_unwritable_cache_does_not_stop_training(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        words = ["--data", str(parts), *FOLDER]
        assert main([*words, "--store", str(tmp_path / "store"), "--data-dir", "/dev/null/data"]) == 0

    def test_terminal_has_a_progress_bar_and_ctrl_c_restores_it(self, tmp_path: Path) -> None:
        main_end, terminal = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
            cwd=ROOT, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, text=True,
            env={**WITHOUT_COVERAGE, "TERM": "xterm-256color", "COLUMNS": "80"},
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
        assert shown.rindex(b"\x1b[?25h") > shown.rindex(b"\x1b[?25l")  # the cursor is visible again
        assert ModelStore(tmp_path / "store").contents() == {}


def _chunks(terminal: int) -> Iterator[bytes]:
    watchdog = threading.Timer(120, os.close, [terminal])
    watchdog.start()
    try:
        while chunk := os.read(terminal, 65536):
            yield chunk
    except OSError:  # Linux raises it when the other end is closed
        return
    finally:
        watchdog.cancel()


class TestInterrupt:
    def test_ctrl_c_with_output_to_a_pipe(self, tmp_path: Path) -> None:
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
            cwd=ROOT, env=WITHOUT_COVERAGE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        while not process.stdout.readline().startswith("epoch   1/"):  # immediately, not when a buffer is full
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "stopped; nothing was published\n")
        assert ModelStore(tmp_path / "store").contents() == {}

    @pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="reads /proc")
    @pytest.mark.parametrize("library", ["_multiarray_umath", "libtorch_cpu", "scipy"])
    def test_ctrl_c_during_imports(self, tmp_path: Path, library: str) -> None:
        """Without special handling, numpy and scipy would print long tracebacks."""
        process = subprocess.Popen(
            [sys.executable, "-m", "training", *options(tmp_path, *QUICK, "--epochs", "100000")],
            cwd=ROOT, env=WITHOUT_COVERAGE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        while library not in Path(f"/proc/{process.pid}/maps").read_text():
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, "stopped; nothing was published\n")

    def test_ctrl_c_between_imports_and_training(self, tmp_path: Path) -> None:
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

    def test_ctrl_c_while_publishing_prints_how_to_check(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def interrupted(*_: object, **__: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(ModelStore, "publish", interrupted)
        assert main(options(tmp_path, *QUICK)) == 130
        assert capsys.readouterr().err == (
            f"stopped; python -m training list --store {tmp_path / 'store'} shows what was published\n"
        )

    def test_closed_pipe_is_status_1_without_output(self, tmp_path: Path) -> None:
        ModelStore(tmp_path).publish(*make_bundle("m"))
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "training", "list", "--json", "--store", str(tmp_path)],
            cwd=ROOT, env=WITHOUT_COVERAGE, stdout=writer, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        assert (done.returncode, done.stderr) == (1, "")


class TestErrors:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["--recipe", "tutorail"], "unknown recipe 'tutorail'; did you mean 'tutorial'?"),
            (["--recipe", "xyz"], "unknown recipe 'xyz'; choose from auto, default, tutorial, conv, linear"),
            (["--score", "locl-relative"], "unknown scoring rule 'locl-relative'; did you mean 'local-relative'?"),
            (["--guarantee", "Strict"], "did you mean 'strict'?"),
            (["--mode", "grey"], "choose from auto, L, RGB"),
            (["--levels", "4095"], "'4095' is neither auto, full nor of the form LOW:HIGH, such as 0:4095"),
            (["--levels", "9:9"], "'9:9' is neither auto, full nor of the form LOW:HIGH, such as 0:4095"),
            (["--levels", "0:inf"], "'0:inf' is neither auto, full nor of the form LOW:HIGH, such as 0:4095"),
            (["--background", "wite"], "'wite' is neither the name of a colour nor of the form #rrggbb"),
            (["--epohcs", "3"], "'--epohcs' is not understood; did you mean '--epochs'?"),
            (["lst"], "'lst' is not understood; did you mean 'list'?"),
            (["--store", "x", "list"], "'list' must be the first word"),
            (["digits"], "'digits' is not understood"),
            (["--false-alarm-rate", "1.5"], "'1.5' is not between 0 and 1"),
            (["--false-alarm-rate", "-0.1"], "'-0.1' is not between 0 and 1"),
            (["--false-alarm-rate", "nan"], "'nan' is not between 0 and 1"),
            (["--epochs"], "--epochs: expected one argument"),
        ],
    )
    def test_usage_errors(self, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
        status, line = error_of(words, capsys)
        assert status == 2
        assert message in line
        assert line.endswith("(see python -m training --help)")

    @pytest.mark.parametrize(
        ("make", "words", "message"),
        [
            ((), ["--data", "{}/nothing"], "is neither a folder nor a built-in set; choose"),
            ((), ["--data", "Digits"], "did you mean 'digits'?"),
            ((), ["--data", "a" * 300], "a" * 300),
            (("zip",), ["--data", "{}/zip"], "is a file; --data must be a folder of images, a list of labelled"),
            (("x/notes.txt",), ["--data", "{}/x"], "contains no images (.png, "),
            (("x/a/1.png", "x/b/2.jpg"), ["--data", "{}/x"], "cannot be told which images are normal: a/ 1, b/ 1. "),
            (("x/normal/notes.txt",), ["--data", "{}/x"], "; 1 file not looked at: .txt 1"),
            (("x/normal/1.png", "x/normal/2.png"), ["--data", "{}/x"],
             "none of the 2 images of {}/x can be read; the first, 1.png: not a readable image"),
            ((), ["--data", "digits", "--false-alarm-rate", "0.001"],
             "needs at least 999 normal images, but there are 149. The lowest rate for so few is 0.006667. "),
            ((), ["--data", "digits", "--false-alarm-rate", "0.001", "--calibration", "split"],
             "needs at least 999 calibration images, so 1332 normal images in total, but there are 149"),
            ((), ["--data", "digits", "--store", "/dev/null/store"], "cannot write to /dev/null/store/digits-5: Not a"),
            ((), ["--data", "digits", "--learning-rate", "1e30"], "choose a --learning-rate below 1e+30"),
        ],
    )  # fmt: skip
    def test_unusable_data_and_stores(
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
        status, line = error_of(options(tmp_path, *(word.replace("{}", str(tmp_path)) for word in words)), capsys)
        assert status == 1
        assert message.replace("{}", str(tmp_path)) in line
        assert ModelStore(tmp_path / "store").contents() == {}

    def test_too_few_images_prints_how_many_are_needed_and_which_were_skipped(
        self, parts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (parts / "normal" / "00.png").write_bytes(b"nothing")
        assert main(options(tmp_path, "--data", str(parts))) == 1
        out, err = capsys.readouterr()
        assert "00.png: not a readable image" in out
        assert "needs at least 99 normal images, but there are 39." in err

    def test_failed_run_does_not_create_the_store(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        error_of(options(tmp_path, "--data", "digits", "--false-alarm-rate", "0.001"), capsys)
        assert not (tmp_path / "store").exists()

    @pytest.mark.parametrize(("source", "folder"), [("mnist", "MNIST"), ("fashion-mnist", "FashionMNIST")])
    def test_missing_data_set_without_network(
        self,
        source: str,
        folder: str,
        tmp_path: Path,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for variable in ("http_proxy", "https_proxy"):
            monkeypatch.setenv(variable, "http://127.0.0.1:9")  # no server listens there
        status, line = error_of(options(tmp_path, "--data", source), capsys)
        assert status == 1
        assert f"not in {tmp_path / 'data' / folder / 'raw'} and cannot be downloaded (Connection refused)" in line
        assert "train-images-idx3-ubyte" in line
        assert "by hand" in line

    def test_too_little_memory(self, tmp_path: Path) -> None:
        (tmp_path / "normal").mkdir()
        for i in range(30):
            Image.linear_gradient("L").resize((9, 9)).point(lambda level, i=i: level // 2 + i).convert("RGB").save(
                tmp_path / "normal" / f"{i}.png"
            )
        words = ["--data", str(tmp_path), "--recipe", "default", "--size", "1024", "--false-alarm-rate", "0.1"]
        done = subprocess.run(
            ["/bin/sh", "-c", 'ulimit -v 8000000 && exec "$@"', "sh", sys.executable, "-m", "training",
             *options(tmp_path, *words)],
            cwd=ROOT, capture_output=True, text=True, check=False, env={**WITHOUT_COVERAGE, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        assert done.returncode == 1
        assert done.stderr.startswith("error: not enough memory for images of this size: choose a smaller --size")
        assert done.stderr.count("\n") == 1

    def test_missing_package(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "training.cli.train", None)
        monkeypatch.delitem(sys.modules, "training.cli.train")
        monkeypatch.delitem(sys.modules, "training.cli.parser", raising=False)
        monkeypatch.setitem(sys.modules, "rich.console", None)
        status, line = error_of(["--data", "digits"], capsys)
        assert status == 1
        assert "rich.console is not installed" in line
        assert "pip install '.[training]'" in line
