"""Our service against other model servers: one TorchScript file, one answer, one core each, wrk on another.

    python -m benchmarks.peers --peers litserve,mlserver --rounds 5 --seconds 4

Each peer runs in an environment of its own, made at first use; its server and what it follows are in
``benchmarks/peers/<peer>/``. In every round our service and the peer start afresh, one after the other and in
alternating order. Before the load each must answer as ours does; while it runs, the MSE in every answer is checked.
"""

import argparse
import base64
import http.client
import io
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

from PIL import Image, ImageChops

from benchmarks.load import (
    LOAD_CORE,
    MSE_TOLERANCE,
    LoadError,
    check_script,
    free_port,
    pinned_server,
    post_script,
    require_tools,
    run_wrk,
)

_ROOT: Final = Path(__file__).resolve().parent.parent
_SERVERS: Final = Path(__file__).with_suffix("")
_SHARED: Final = _SERVERS / "shared"
_MODEL: Final = "mnist-5"
_RESULTS: Final = _ROOT / "benchmarks" / "results.json"

_CONNECTIONS: Final = 32
_WARM_UP_S: Final = 1
_REQUEST_TIMEOUT_S: Final = 10
_IMAGES: Final = 8
_DIM: Final = 0.03  # each image is by so much darker than the one before
_ONE_THREAD: Final = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

Answer = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A server to measure.

    Attributes:
        name: of its folder, its environment and its package.
        command: arguments by port; the first is looked up among the environment's programs.
        path: where images are posted.
        content_type: of a request.
        body: an image file → a request's body.
        answer: a response's JSON → the answer, out of its envelope.
        variables: environment variables by port.
        prepare: a command that runs once before, with a folder that the server finds as ``$BENCHMARK_SCRATCH``.
        needs: a program that must be on the path, and how to get it.
    """

    name: str
    command: Callable[[int], Sequence[str]]
    path: str
    content_type: str = "application/json"
    body: Callable[[bytes], bytes] = lambda file: file
    answer: Callable[[Any], Answer] = dict
    variables: Callable[[int], Mapping[str, str]] = lambda _: {}
    prepare: Callable[[Path], Sequence[str]] | None = None
    needs: tuple[str, str] | None = None


@dataclass(frozen=True)
class Figures:
    """One start of one server, or medians of several."""

    requests_per_s_at_32: float
    requests_per_s_at_1: float
    p99_ms_at_32: float
    p99_ms_at_1: float
    cpu_ms_per_request_at_32: float
    start_s: float
    memory_mib: float
    errors: float


def _base64(file: bytes) -> str:
    return base64.b64encode(file).decode()


_OURS: Final = Target(
    name="ours",
    command=lambda port: ["python", "-m", "app", "--port", str(port)],
    path="/score",
    content_type="image/png",
)

_PEERS: Final = {
    peer.name: peer
    for peer in (
        Target(
            name="litserve",
            command=lambda port: ["python", "server.py", "--port", str(port)],
            path="/predict",
            body=lambda file: json.dumps({"image": _base64(file)}).encode(),
        ),
        Target(
            name="bentoml",
            command=lambda port: ["bentoml", "serve", "service:Anomaly", "--host", "127.0.0.1", "--port", str(port)],
            path="/score",
            body=lambda file: json.dumps({"images": [_base64(file)]}).encode(),
            answer=lambda envelope: dict(envelope[0]),
            variables=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
        ),
        Target(
            name="mlserver",
            command=lambda _: ["mlserver", "start", "."],
            path=f"/v2/models/{_MODEL}/infer",
            body=lambda file: json.dumps(
                {
                    "inputs": [
                        {
                            "name": "image",
                            "shape": [1, 1],
                            "datatype": "BYTES",
                            "parameters": {"content_type": "base64"},
                            "data": [_base64(file)],
                        }
                    ]
                }
            ).encode(),
            answer=lambda envelope: dict(json.loads(envelope["outputs"][0]["data"][0])),
            variables=lambda port: {
                "MLSERVER_HTTP_PORT": str(port),
                "MLSERVER_GRPC_PORT": str(free_port()),
                "MLSERVER_METRICS_PORT": str(free_port()),
            },
        ),
        Target(
            name="kserve",
            command=lambda port: [
                "python", "server.py", "--http_port", str(port), "--enable_grpc", "false", "--model_name", _MODEL,
            ],
            path=f"/v1/models/{_MODEL}:predict",
            content_type="image/png",
        ),
        Target(
            name="torchserve",
            command=lambda _: ["sh", "serve.sh", _MODEL],
            path=f"/predictions/{_MODEL}",
            content_type="image/png",
            variables=lambda port: {
                "TS_INFERENCE_ADDRESS": f"http://127.0.0.1:{port}",
                "TS_MANAGEMENT_ADDRESS": f"http://127.0.0.1:{free_port()}",
                "TS_METRICS_ADDRESS": f"http://127.0.0.1:{free_port()}",
            },
            prepare=lambda scratch: [
                "torch-model-archiver", "--model-name", _MODEL, "--version", "1.0", "--force",
                "--serialized-file", str(_bundle() / "model.pt"),
                "--handler", "handler.py",
                "--extra-files", f"{_bundle() / 'manifest.json'},{_SHARED / 'anomaly.py'}",
                "--config-file", "model-config.yaml",
                "--export-path", str(scratch),
            ],
            needs=("java", "needs Java 11 or newer; on Debian: apt-get install default-jre-headless"),
        ),
    )
}  # fmt: skip


def main() -> int:
    """Measures, prints the table, keeps the figures; returns the exit status."""
    options = _options()
    try:
        require_tools()
    except LoadError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    os.sched_setaffinity(0, {LOAD_CORE})  # this process leaves the server's core alone, too
    images = _images()
    rows: dict[str, Answer] = {}
    with tempfile.TemporaryDirectory() as scratch:
        ours = _Bench(_OURS, Path(sys.executable).parent, _ROOT, Path(scratch), images)
        try:
            expected = ours.answers()
        except LoadError as error:
            print(f"error: our own service: {error}", file=sys.stderr)
            return 1
        for name in options.peers:
            print(f"{name}: {_version(name)}", flush=True)
            try:
                programs = _environment(_PEERS[name], options.environments / name)
                peer = _Bench(_PEERS[name], programs, _SERVERS / name, Path(scratch), images)
                peer.prepare()
                rounds = _rounds(ours, peer, expected, options.rounds, options.seconds)
            except LoadError as error:
                rows[name] = {"version": _version(name), "failed": str(error)}
                print(f"  failed: {error}", flush=True)
            else:
                rows[name] = {"version": _version(name), **_summary(rounds)}
    _keep(options.output, rows, options)
    print(f"\n{_table(rows)}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.peers", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--peers", default=",".join(_PEERS), help="comma list of peers to measure")
    parser.add_argument(
        "--environments",
        type=Path,
        default=Path.home() / ".cache" / "anomaly-service-benchmarks",
        help="folder of the peers' environments; made at first use",
    )
    parser.add_argument("--rounds", type=int, default=5, help="pairs of runs, ours and the peer's")
    parser.add_argument(
        "--seconds", type=int, default=4, help=f"of load at {_CONNECTIONS} connections; at 1, half as long"
    )
    parser.add_argument("--output", type=Path, default=_RESULTS, help="the figures go there, under the key peers")
    options = parser.parse_args()
    options.peers = [name.strip() for name in options.peers.split(",") if name.strip()]
    for name in options.peers:
        if name not in _PEERS:
            parser.error(f"{name!r} is none of {', '.join(_PEERS)}")
    options.environments = options.environments.expanduser().resolve()
    return options


class _Bench:
    """One server, ready to be started and measured again and again."""

    def __init__(self, target: Target, programs: Path, folder: Path, scratch: Path, images: Sequence[bytes]) -> None:
        self.target = target
        self._programs = programs
        self._folder = folder
        self._scratch = scratch
        self._bodies = [target.body(image) for image in images]

    def prepare(self) -> None:
        """What is done once, before the server ever starts."""
        if self.target.prepare:
            _run([*self.target.prepare(self._scratch)], self._folder, self._variables(0))

    def answers(self) -> list[Answer]:
        """Its answers to the images, one after the other."""
        port = free_port()
        with self._running(port, lambda: bool(self._ask(port, self._bodies[0]))):
            return [self._demand(port, body) for body in self._bodies]

    def measure(self, expected: Sequence[Answer], seconds: int) -> Figures:
        """Starts it, checks its answers, loads it with one connection and with many, weighs it, stops it.

        Raises:
            LoadError: it does not run, or does not answer as expected.
        """
        port = free_port()
        with self._running(port, lambda: bool(self._ask(port, self._bodies[0]))) as server:
            for body, right in zip(self._bodies, expected, strict=True):
                _require_same(self._demand(port, body), right)
            script = post_script(self.target.path, self._bodies, self.target.content_type)
            script += check_script([answer["results"][0]["mse"] for answer in expected])
            url = f"http://127.0.0.1:{port}"
            run_wrk(url, script, _CONNECTIONS, _WARM_UP_S)
            # One connection first: a batcher that adapts itself to a rush would make the lone request wait.
            one = run_wrk(url, script, 1, seconds / 2)
            cpu_s = server.cpu_seconds()
            many = run_wrk(url, script, _CONNECTIONS, seconds)
            cpu_s = server.cpu_seconds() - cpu_s
            return Figures(
                requests_per_s_at_32=many.requests_per_s,
                requests_per_s_at_1=one.requests_per_s,
                p99_ms_at_32=many.p99_ms,
                p99_ms_at_1=one.p99_ms,
                cpu_ms_per_request_at_32=cpu_s * 1e3 / max(1, many.requests),
                start_s=server.seconds_to_ready,
                memory_mib=server.resident_bytes() / 2**20,
                errors=many.errors + one.errors,
            )

    def _running(self, port: int, ready: Callable[[], bool]) -> Any:
        command = [*self.target.command(port)]
        command[0] = shutil.which(command[0], path=f"{self._programs}:{os.environ['PATH']}") or command[0]
        return pinned_server(
            command,
            ready,
            log=self._scratch / f"{self.target.name}.log",
            environment=self._variables(port),
            folder=self._folder,
        )

    def _variables(self, port: int) -> dict[str, str]:
        return {
            **_ONE_THREAD,
            "PATH": f"{self._programs}:{os.environ['PATH']}",
            "PYTHONPATH": "" if self.target is _OURS else str(_SHARED),
            "PYTHONDONTWRITEBYTECODE": "1",
            "BENCHMARK_BUNDLE": str(_bundle()),
            "BENCHMARK_SCRATCH": str(self._scratch),
            **self.target.variables(port),
        }

    def _demand(self, port: int, body: bytes) -> Answer:
        """An answer of a server that is ready.

        Raises:
            LoadError: there is none.
        """
        try:
            return self._ask(port, body)
        except OSError as error:
            raise LoadError(str(error)) from error

    def _ask(self, port: int, body: bytes) -> Answer:
        """One answer.

        Raises:
            OSError: there is none yet, or it says that the server is not ready.
        """
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_REQUEST_TIMEOUT_S)
        try:
            connection.request("POST", self.target.path, body, {"Content-Type": self.target.content_type})
            response = connection.getresponse()
            content = response.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if response.status != http.HTTPStatus.OK:
            raise OSError(f"it answered {response.status}: {content[:200]!r}")
        try:
            return self.target.answer(json.loads(content))
        except (LookupError, TypeError, ValueError) as error:
            raise OSError(f"its answer cannot be read: {content[:200]!r}") from error


def _rounds(
    ours: _Bench, peer: _Bench, expected: Sequence[Answer], rounds: int, seconds: int
) -> list[tuple[Figures, Figures]]:
    """Pairs (ours, the peer's); whoever comes second in one round comes first in the next."""
    pairs = []
    for number in range(rounds):
        order = (ours, peer) if number % 2 == 0 else (peer, ours)
        first, second = (bench.measure(expected, seconds) for bench in order)
        pair = (first, second) if order[0] is ours else (second, first)
        pairs.append(pair)
        print(f"  round {number + 1}: {_short(pair[0])} to {_short(pair[1])}", flush=True)
    return pairs


def _short(figures: Figures) -> str:
    return f"{figures.requests_per_s_at_32:.0f} and {figures.requests_per_s_at_1:.0f} requests/s"


def _summary(rounds: Sequence[tuple[Figures, Figures]]) -> Answer:
    """Medians over the rounds, of the ratios of each round too; errors are added up."""
    ours, peer = ([asdict(pair[side]) for pair in rounds] for side in (0, 1))
    figures = [name for name in ours[0] if name != "errors"]
    return {
        "ours_to_peer": {
            name: median(mine[name] / theirs[name] for mine, theirs in zip(ours, peer, strict=True)) for name in figures
        },
        "ours": {name: median(each[name] for each in ours) for name in figures},
        "peer": {name: median(each[name] for each in peer) for name in figures},
        "errors": {"ours": sum(each["errors"] for each in ours), "peer": sum(each["errors"] for each in peer)},
        "rounds": len(rounds),
    }


def _table(rows: Mapping[str, Answer]) -> str:
    """Ours ÷ peer, for people."""
    lines = [
        f"| ours ÷ peer | requests/s at {_CONNECTIONS} | at 1 connection | p99 at {_CONNECTIONS} "
        "| processor time of a request | start | memory | errors |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in rows.items():
        label = f"{name} {row['version']}"
        if "failed" in row:
            lines.append(f"| {label} | {row['failed']} |")
            continue
        ratio, ours, peer, errors = row["ours_to_peer"], row["ours"], row["peer"], row["errors"]
        cells = [
            f"{ratio[figure]:.2f} × ({ours[figure]:.{digits}f} ÷ {peer[figure]:.{digits}f}{unit})"
            for figure, digits, unit in (
                ("requests_per_s_at_32", 0, ""),
                ("requests_per_s_at_1", 0, ""),
                ("p99_ms_at_32", 0, " ms"),
                ("cpu_ms_per_request_at_32", 2, " ms"),
                ("start_s", 1, " s"),
                ("memory_mib", 0, " MiB"),
            )
        ]
        lines.append(f"| {label} | {' | '.join(cells)} | {errors['ours']:.0f}, {errors['peer']:.0f} |")
    return "\n".join(lines)


def _keep(output: Path, rows: Mapping[str, Answer], options: argparse.Namespace) -> None:
    """Puts the rows into the file of results; what other benchmarks and other peers wrote there stays."""
    results = json.loads(output.read_text()) if output.exists() else {}
    machine = {
        "processor": _processor(),
        "python": platform.python_version(),
        "torch": version("torch"),
    }
    for name, row in rows.items():
        results.setdefault("peers", {})[name] = {**row, "seconds": options.seconds, **machine}
    output.write_text(json.dumps(results, indent=2, sort_keys=True) + "\n")


def _require_same(answer: Answer, expected: Answer) -> None:
    """Every field of ours must be there with the same value, numbers but for rounding.

    Raises:
        LoadError: something differs.
    """
    mine, theirs = expected["results"][0], answer["results"][0]
    # A score that rounds to the other side of a calibration score moves the p-value by one rank.
    tolerances = {"mse": (MSE_TOLERANCE, 0.0), "score": (MSE_TOLERANCE, 0.0), "p_value": (0.0, 0.002)}
    wrong = [name for name in ("model", "threshold", "false_alarm_rate") if answer.get(name) != expected[name]]
    for name, value in mine.items():
        other = theirs.get(name)
        if name in tolerances:
            relative, absolute = tolerances[name]
            same = isinstance(other, float) and math.isclose(other, value, rel_tol=relative, abs_tol=absolute)
        elif name == "reconstruction":
            same = isinstance(other, str) and _same_image(other, value)
        else:
            same = other == value
        if not same:
            wrong.append(name)
    if wrong:
        raise LoadError(f"its answer differs from ours in {', '.join(wrong)}")


def _same_image(one: str, other: str) -> bool:
    """Whether two data URIs hold the same image, give or take one level."""
    images = [Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))) for uri in (one, other)]
    if len({(image.mode, image.size) for image in images}) > 1:
        return False
    return int(ImageChops.difference(*images).getextrema()[1]) <= 1  # type: ignore[arg-type]


def _images() -> list[bytes]:
    """Several images that differ, all of them normal: the model's golden one, darker and darker."""
    card = json.loads((_bundle() / "manifest.json").read_text())
    golden = Image.open(io.BytesIO(base64.b64decode(card["golden"]["image"])))
    files = []
    for number in range(1, _IMAGES + 1):
        buffer = io.BytesIO()
        golden.point([round(level * (1 - _DIM * number)) for level in range(256)]).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def _bundle() -> Path:
    """The version that ships."""
    model = _ROOT / "model_store" / _MODEL
    return model / (model / "CURRENT").read_text().strip()


def _version(name: str) -> str:
    """The version of a peer, as its requirements pin it."""
    lines = (_SERVERS / name / "requirements.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{name}=="))


def _environment(target: Target, folder: Path) -> Path:
    """Makes a peer's environment unless it stands already; returns the folder of its programs.

    It gets the very build of torch that we run on, from where ours came: the backend index's carry its name.

    Raises:
        LoadError: it cannot be installed, or needs what is not here.
    """
    if target.needs and shutil.which(target.needs[0]) is None:
        raise LoadError(target.needs[1])
    requirements = _SERVERS / target.name / "requirements.txt"
    torch = f"torch=={version('torch')}"
    wanted = "\n".join([platform.python_version(), torch, requirements.read_text()])
    done = folder / "installed.txt"
    if not done.exists() or done.read_text() != wanted:
        print("  installing …", flush=True)
        uv = [sys.executable, "-m", "uv"]
        backend = ["--torch-backend=auto"] if "+" in torch else []
        python = str(folder / "bin" / "python")
        _run([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder)], _ROOT)
        _run([*uv, "pip", "install", "--quiet", *backend, "--python", python, "-r", str(requirements), torch], _ROOT)
        done.write_text(wanted)
    return folder / "bin"


def _run(command: list[str], folder: Path, variables: Mapping[str, str] | None = None) -> None:
    environment = {**os.environ, **(variables or {})}
    program = shutil.which(command[0], path=environment["PATH"]) or command[0]
    try:
        subprocess.run(  # noqa: S603  fixed commands
            [program, *command[1:]], cwd=folder, env=environment, check=True, capture_output=True, text=True
        )
    except OSError as error:
        raise LoadError(f"{command[0]} does not run: {error.strerror}") from error
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout).split())
        raise LoadError(f"{' '.join(command[:4])} failed: {said[:300]}") from error


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


if __name__ == "__main__":
    sys.exit(main())
