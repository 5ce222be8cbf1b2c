"""deploy/ray: each image is scored once, as by the service, even if processes of the cluster are killed."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray", reason="the extra `ray` is not installed")

import pyarrow as pa
import pyarrow.parquet as pq
from ray.cluster_utils import Cluster

from app.client.runs.rows import COLUMNS
from app.inference.bundles.signing import SigningKey
from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected, UnsupportedFalseAlarmRate
from bulk.errors import CannotRun
from bulk.results import SCHEMA, Results
from bulk.scoring import OUTCOME, ModelSnapshot, ScoringActor
from tests.full_disk import file_size_limit
from tests.support import ROOT, Server, encode, gradient

SCRIPT = ROOT / "deploy" / "ray" / "score_dataset.py"
COPIES = 5  # of each digit, for some seconds of work


def command(*arguments: object) -> list[str]:
    return [sys.executable, str(SCRIPT), *map(str, arguments)]


def table(folder: Path) -> dict[str, dict[str, Any]]:
    """The rows by path, after a check that each path has one row."""
    rows = [row for part in folder.glob("*.parquet") for row in pq.read_table(part).to_pylist()]
    by_path = {row["path"]: row for row in rows}
    assert len(rows) == len(by_path)
    return by_path


def score_with(server: Server, files: list[bytes]) -> list[dict[str, Any]]:
    """The results of the service, in requests with several images."""
    max_files = 8
    results = []
    for at in range(0, len(files), max_files):
        parts = [("file", (f"{number}", data)) for number, data in enumerate(files[at : at + max_files])]
        results += server.client.post("/score?include=", files=parts).json()["results"]
    return results


@pytest.fixture(scope="module")
def snapshot(store: Path) -> ModelSnapshot:
    return ModelSnapshot.take(ModelStore(store), "digits-5", None, None)


@pytest.fixture(scope="module")
def images(digit_files: dict[int, list[bytes]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several copies of every digit, and two unreadable files."""
    root = tmp_path_factory.mktemp("images")
    for digit, files in digit_files.items():
        first = root / f"{digit}-0"
        first.mkdir()
        for number, data in enumerate(files):
            (first / f"{number:03}.png").write_bytes(data)
        for copy in range(1, COPIES):
            (root / f"{digit}-{copy}").mkdir()
            for file in first.iterdir():
                (root / f"{digit}-{copy}" / file.name).hardlink_to(file)
    (root / "empty.png").touch()
    (root / "cut.png").write_bytes(digit_files[5][0][:60])
    return root


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    node = {"num_cpus": 1, "object_store_memory": 80 * 2**20, "include_log_monitor": False}
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("RAY_USAGE_STATS_ENABLED", "0")
        environment.setenv("RAY_worker_niceness", "0")
        cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False, "no_monitor": True})
        try:
            for _ in range(2):
                cluster.add_node(wait=False, **node)
            cluster.wait_for_nodes()
            yield cluster
        finally:
            cluster.shutdown()


def wait_for_parts(output: Path, more_than: int, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 200
    while len(list(output.glob("*.parquet"))) <= more_than:
        assert process.poll() is None, process.communicate()
        if time.monotonic() > deadline:
            process.kill()
            raise AssertionError(process.communicate())
        time.sleep(0.02)


def has_actor(raylet: int) -> bool:
    """Whether one of the processes of a node is an actor of the job."""
    children = Path(f"/proc/{raylet}/task/{raylet}/children").read_text().split()
    return any(Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"ray::MapWorker") for child in children)


@pytest.mark.cluster
@pytest.mark.skipif(" " in sys.executable, reason="Ray starts no workers with an interpreter whose path has a space")
def test_job_resumes_after_kill_and_survives_the_loss_of_a_node(
    cluster: Cluster, images: Path, store: Path, server: Server, tmp_path: Path
) -> None:
    output = tmp_path / "scores"
    job = command(images, "--output", output, "--model-store", store, "--model", "digits-5")
    job += [
        "--rows-per-file",
        "1000",
        "--batch-size",
        "4",
    ]  # small files and batches, so that the job can be killed halfway
    environment = {**os.environ, "RAY_ADDRESS": cluster.address}
    total = 1797 * COPIES + 2

    with subprocess.Popen(job, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        wait_for_parts(output, 0, first)
        first.kill()
    before = table(output)
    assert 0 < len(before) < total
    (output / ".part-incomplete.parquet.incoming").write_bytes(b"PAR1 incomplete")

    files = len(list(output.glob("*.parquet")))
    with subprocess.Popen(job, env=environment, text=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE) as second:
        wait_for_parts(output, files, second)
        node = next(iter(cluster.worker_nodes))
        assert has_actor(node.all_processes["raylet"][0].process.pid)
        cluster.remove_node(node, allow_graceful=False)
        assert len(table(output)) < total
        summary, log = second.communicate(timeout=300)
        assert second.returncode == 0, log

    rows = table(output)
    assert len(rows) == total
    assert f"{len(before):,} already scored" in log
    assert f"{total - len(before):,} images in" in summary
    assert {path: rows[path] for path in before} == before

    singles = sorted(images.glob("*-0/*.png"))
    for file, answer in zip(singles, score_with(server, [file.read_bytes() for file in singles]), strict=True):
        for copy in range(COPIES):
            row = rows[str(file).replace("-0/", f"-{copy}/")]
            assert row["score"] == pytest.approx(answer["score"], rel=1e-5)
            assert row["mse"] == pytest.approx(answer["mse"], rel=1e-5)
            assert row["p_value"] == pytest.approx(answer["p_value"], abs=0.011)  # the rank may differ by one
            assert row["status"] == "scored"
    for name in ("empty.png", "cut.png"):
        row = rows[str(images / name)]
        assert (row["status"], row["score"], row["verdict"]) == ("rejected", None, None)
        assert row["error"]


def test_actor_returns_exactly_the_numbers_of_the_service(
    snapshot: ModelSnapshot, digit_files: dict[int, list[bytes]], server: Server, tmp_path: Path
) -> None:
    files = [file for digit in (5, 3) for file in digit_files[digit][:4]]
    paths = []
    for number, data in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(data)
        paths.append(f"{number}.png")
    scorer = ScoringActor(snapshot, batch_size=8, max_pixels=10**6, base=str(tmp_path))
    rows = scorer(pa.table({"path": paths})).to_pylist()
    for row, answer in zip(rows, score_with(server, files), strict=True):
        for name in ("mse", "score", "p_value", "verdict", "warnings", "status"):
            assert row[name] == answer[name]
        assert row["boxes"] == [region["box"] for region in answer["regions"]]


def test_rows_of_rejected_images_contain_the_reason(snapshot: ModelSnapshot, tmp_path: Path) -> None:
    (tmp_path / "fine.png").write_bytes(encode(gradient()))
    (tmp_path / "wide.png").write_bytes(encode(gradient(101, 100)))
    (tmp_path / "text.png").write_text("not an image")
    (tmp_path / "folder.png").mkdir()
    with (tmp_path / "huge.png").open("wb") as sparse:
        sparse.truncate(2**28 + 1)
    (tmp_path / "100% sure? #1.png").hardlink_to(tmp_path / "fine.png")
    expected = {
        "fine.png": None,
        "wide.png": "10,100 pixels, more than 10,000",
        "text.png": "not a readable image",
        "folder.png": "",
        "huge.png": "larger than 256 MiB",
        "missing.png": "No such file",
        "nothing://there/fine.png": "nothing://",
        "100% sure? #1.png": None,
        f"file://{tmp_path}/100% sure? #1.png": None,
        f"local://{tmp_path}/fine.png": None,  # read through fsspec in the background, as from a network
        f"local://{tmp_path}/missing.png": "missing.png",
        "nul\0.png": "",
    }
    scorer = ScoringActor(snapshot, batch_size=3, max_pixels=10_000, base=str(tmp_path))
    rows = {row["path"]: row for row in scorer(pa.table({"path": list(expected)})).to_pylist()}
    assert list(rows) == list(expected)
    for path, reason in expected.items():
        row = rows[path]
        assert row["status"] == ("scored" if reason is None else "rejected"), path
        assert (row["score"] is None) == (row["error"] is not None)
        if reason is not None:
            assert reason in row["error"]
            assert "\n" not in row["error"]
    scores = [rows[path]["score"] for path, reason in expected.items() if reason is None]
    assert scores == pytest.approx([scores[0]] * len(scores), rel=1e-5)  # rounding depends on the size of a batch


def test_snapshot_is_verified(store: Path, snapshot: ModelSnapshot, tmp_path: Path) -> None:
    manifest = ModelStore(store).manifest("digits-5")
    assert (snapshot.version, snapshot.threshold) == (manifest.version, manifest.threshold)
    other_rate = ModelSnapshot.take(ModelStore(store), "digits-5", manifest.version, 0.2)
    assert other_rate.threshold is not None
    assert snapshot.threshold is not None
    assert other_rate.threshold < snapshot.threshold
    with pytest.raises(UnsupportedFalseAlarmRate):
        ModelSnapshot.take(ModelStore(store), "digits-5", None, 1e-6)
    forged = ModelSnapshot(
        **{**vars(snapshot), "files": {**snapshot.files, "model.pt": snapshot.files["model.pt"] + b"x"}}
    )
    with pytest.raises(BundleRejected):
        ScoringActor(forged, batch_size=8, max_pixels=10_000, base=str(tmp_path))


def outcomes(*paths: str, status: str = "scored") -> pa.Table:
    rows = [{"path": path, "status": status, "score": 0.5, "verdict": "normal"} for path in paths]
    return pa.Table.from_pylist(rows, OUTCOME)


@pytest.fixture
def results(snapshot: ModelSnapshot, tmp_path: Path) -> Results:
    return Results(str(tmp_path / "out"), snapshot, rows_per_file=4)


def test_results_have_the_columns_of_the_client(results: Results, snapshot: ModelSnapshot) -> None:
    assert results.earlier().to_pylist() == []
    results.add(outcomes("a", "b"))
    assert not Path(results.folder).exists()
    results.add(outcomes("c", "d"))
    results.add(outcomes("e"))
    assert len(table(Path(results.folder))) == 4
    results.flush()
    rows = table(Path(results.folder))
    assert list(rows["e"]) == SCHEMA.names == list(COLUMNS)
    assert (rows["e"]["model"], rows["e"]["version"]) == ("digits-5", snapshot.version)
    assert (rows["e"]["false_alarm_rate"], rows["e"]["threshold"]) == (snapshot.false_alarm_rate, snapshot.threshold)
    assert sorted(results.earlier().to_pylist()) == ["a", "b", "c", "d", "e"]
    assert not list(Path(results.folder).glob(".*"))


def test_rows_that_do_not_fit_on_the_disk_leave_no_file(results: Results) -> None:
    results.add(outcomes("a.png"))
    with file_size_limit(100), pytest.raises(OSError, match="too large"):
        results.flush()
    assert list(Path(results.folder).iterdir()) == []
    results.flush()
    assert results.earlier().to_pylist() == ["a.png"]


def test_rejected_images_can_be_scored_again(results: Results) -> None:
    results.add(outcomes("a"))
    results.add(outcomes("b", status="rejected"))
    results.flush()
    results.forget_rejected()
    assert results.earlier().to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": "1999"}, "has rows with version"),
        ({"model": "digits-7"}, "has rows with model digits-5, this run has model digits-7"),
        ({"false_alarm_rate": 0.2}, "--false-alarm-rate, or --mixed"),
    ],
)
def test_other_models_versions_and_rates_need_mixed(
    results: Results, snapshot: ModelSnapshot, change: dict[str, Any], message: str
) -> None:
    results.add(outcomes("a"))
    results.flush()
    other = Results(results.folder, ModelSnapshot(**{**vars(snapshot), **change}), rows_per_file=4)
    with pytest.raises(CannotRun, match=message):
        other.earlier()
    assert other.earlier(mixed=True).to_pylist() == ["a"]


def test_foreign_and_damaged_results_are_errors(results: Results) -> None:
    Path(results.folder).mkdir()
    part = Path(results.folder, "part.parquet")
    pq.write_table(pa.table({"name": ["x"]}), part)
    with pytest.raises(CannotRun, match="was written by another program"):
        results.earlier()
    part.write_bytes(b"PAR1 cut short")
    with pytest.raises(CannotRun, match=r"part\.parquet is damaged"):
        results.earlier()
    part.rename(part.with_name(".part.parquet.incoming"))
    assert results.earlier().to_pylist() == []
    assert not list(Path(results.folder).iterdir())


def test_version_that_fails_verification_stops_the_job(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    model = next((tmp_path / "store" / "digits-5").glob("*/model.pt"))
    model.write_bytes(model.read_bytes()[:-1] + b"x")
    (tmp_path / "image.png").write_bytes(encode(gradient()))
    job = command(tmp_path, "--output", tmp_path / "out", "--model-store", tmp_path / "store", "--model", "digits-5")
    done = subprocess.run(job, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: digits-5/")
    assert "model.pt was changed" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_unsigned_version_stops_the_job_with_trusted_keys(store: Path, tmp_path: Path) -> None:
    (tmp_path / "keys.pub").write_bytes(SigningKey.generate().public_pem())
    job = command(tmp_path, "--output", tmp_path / "out", "--model-store", store, "--model", "digits-5")
    done = subprocess.run([*job, "--trusted-keys", tmp_path / "keys.pub"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "manifest.sig is missing" in done.stderr
    assert done.stderr.count("\n") == 1


def test_fdr_decides_all_rows_of_the_output_together(snapshot: ModelSnapshot, tmp_path: Path) -> None:
    joint = ModelSnapshot(**{**vars(snapshot), "false_alarm_rate": None, "threshold": None, "fdr": 0.1})
    results = Results(str(tmp_path / "out"), joint, rows_per_file=2)
    p_values = {"a": 0.01, "b": 0.04, "c": 0.5, "d": None, "e": 0.06}
    for path, p_value in p_values.items():
        row = {"path": path, "status": "scored" if p_value else "rejected", "p_value": p_value}
        results.add(pa.Table.from_pylist([row], OUTCOME))
    results.flush()
    assert {row["verdict"] for row in table(Path(results.folder)).values()} == {None}
    assert results.decide(0.1) == 3  # 0.06 ≤ 0.1 · 3/4
    verdicts = {path: row["verdict"] for path, row in sorted(table(Path(results.folder)).items())}
    assert verdicts == {"a": "anomaly", "b": "anomaly", "c": "normal", "d": None, "e": "anomaly"}
    with pytest.raises(CannotRun, match=r"fdr 0\.1, this run has fdr None"):
        Results(results.folder, snapshot, rows_per_file=2).earlier(mixed=False)


def test_snapshot_with_fdr_leaves_rows_undecided(
    store: Path, digit_files: dict[int, list[bytes]], tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(digit_files[0][0])
    joint = ModelSnapshot.take(ModelStore(store), "digits-5", None, None, 0.1)
    actor = ScoringActor(joint, batch_size=8, max_pixels=10**6, base=str(tmp_path))
    (row,) = actor(pa.table({"path": ["a.png"]})).to_pylist()
    assert (row["status"], row["verdict"], row["p_value"] > 0) == ("scored", None, True)
    with pytest.raises(UnsupportedFalseAlarmRate, match="no image can be flagged"):
        ModelSnapshot.take(ModelStore(store), "digits-5", None, None, 0.0001)


def test_results_of_before_fdr_are_accepted(results: Results) -> None:
    results.add(outcomes("a"))
    results.flush()
    (part,) = Path(results.folder).iterdir()
    pq.write_table(pq.read_table(part).drop_columns("fdr"), part)
    assert results.earlier().to_pylist() == ["a"]
