"""POST /feedback: answer ids, validation of labels, and the label file."""

import asyncio
import fcntl
import gzip
import hashlib
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest

from app.api.errors import UnknownAnswer
from app.api.feedback import LABEL_BODY_BYTES, Feedback
from app.client import AnomalyClient, AsyncAnomalyClient, Problem
from app.inference.bundles import labels
from app.inference.bundles.labels import Answer
from app.inference.errors import LabelNotKept
from tests.api.openapi.test_document import assert_documented
from tests.full_disk import file_size_limit
from tests.support import Server, encode, gradient, running_server

PNG = encode(gradient())

ANSWER = Answer(model="m", version="v1", mse=0.25, score=0.5, threshold=0.4, picture="0" * 32, request_id="r", index=3)


@pytest.fixture(scope="module")
def label_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "created by the service" / "labels.jsonl"


@pytest.fixture(scope="module")
def labelling_server(store: Path, label_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that keeps labels."""
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(store, log, model="digits-5", feedback_path=label_file) as server:
        yield server


@pytest.fixture(scope="module")
def document(labelling_server: Server) -> dict[str, Any]:
    body: dict[str, Any] = labelling_server.client.get("/openapi.json").json()
    return body


def score(server: Server, *files: bytes, **query: float) -> dict[str, Any]:
    answer = server.client.post("/score", params={"include": "", **query}, files=[("file", file) for file in files])
    body: dict[str, Any] = answer.json()
    return {**body, "request_id": answer.headers["X-Request-ID"]}


def test_without_feedback_path_there_are_no_ids_and_labels_are_404(server: Server) -> None:
    assert "id" not in score(server, PNG)["results"][0]
    answer = server.client.post("/feedback", json={"id": "x", "verdict": "normal"})
    assert answer.status_code == 404
    problem = answer.json()
    assert problem["type"] == "urn:problem-type:feedback-off"
    assert "ANOMALY_FEEDBACK_PATH" in problem["detail"]


def test_label_is_stored_with_the_service_verdict(
    labelling_server: Server, label_file: Path, document: dict[str, Any]
) -> None:
    answer = score(labelling_server, b"not an image", PNG, false_alarm_rate=0.5)
    rejected, scored = answer["results"]
    assert "id" not in rejected
    sent = {
        "id": scored["id"],
        "verdict": "normal",
        "filename": "a.png",
        "comment": 'dust\n"on" the lens',
        "operator": "Kim",
    }
    kept = labelling_server.client.post("/feedback", json=sent)
    assert kept.status_code == 201
    assert_documented(document, "/feedback", kept)
    assert {key: kept.json()[key] for key in ("score", "said", "verdict", "model")} == {
        "score": scored["score"],
        "said": scored["verdict"],
        "verdict": "normal",
        "model": answer["model"],
    }
    (label,) = (each for each in labels.read(label_file).labels if each.comment == sent["comment"])
    assert label.model_dump(exclude={"labelled_at"}) == {
        "model": "digits-5",
        "version": answer["model"]["version"],
        "mse": scored["mse"],
        "score": scored["score"],
        "threshold": answer["threshold"],
        "picture": hashlib.blake2b(PNG, digest_size=16).hexdigest(),
        "request_id": answer["request_id"],
        "index": 1,
        "verdict": "normal",
        "filename": "a.png",
        "comment": sent["comment"],
        "operator": "Kim",
        "image": None,
    }


def test_compressed_labels_are_decompressed_within_their_own_limit(labelling_server: Server) -> None:
    def send(label: bytes) -> httpx.Response:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        return labelling_server.client.post("/feedback", content=gzip.compress(label), headers=headers)

    answer_id = score(labelling_server, PNG)["results"][0]["id"]
    assert send(orjson.dumps({"id": answer_id, "verdict": "normal"})).status_code == 201
    refused = send(b" " * (LABEL_BODY_BYTES + 1))
    assert refused.status_code == 413
    assert refused.json()["detail"] == "the decompressed body has more than 16384 bytes"  # no setting changes it


def test_concurrent_workers_share_one_secret_and_write_whole_lines(tmp_path: Path) -> None:
    """Each worker opens the file itself, and accepts the ids that other workers have issued."""
    path = tmp_path / "labels"
    with ThreadPoolExecutor(8) as pool:
        workers = list(pool.map(lambda _: Feedback(path), range(8)))
        images = [f"{index:032x}" for index in range(200)]
        ids = [
            workers[index % 8].id_of(ANSWER.model_copy(update={"picture": image})) for index, image in enumerate(images)
        ]
        list(pool.map(lambda index: workers[index % 7].keep(body(ids[index], "normal")), range(200)))
    assert sorted(each.name for each in tmp_path.iterdir()) == ["labels", "labels.key"]
    found = labels.read(path)
    assert sorted(label.picture for label in found.labels) == images
    assert found.unreadable == 0


def test_label_is_accepted_by_any_worker(store: Path, tmp_path: Path) -> None:
    """Each request has its own connection, which the kernel assigns to either worker."""
    path = tmp_path / "labels"
    with running_server(store, tmp_path / "log", model="digits-5", workers=2, feedback_path=path) as server:

        def request(path: str, **options: Any) -> httpx.Response:
            return httpx.post(f"http://127.0.0.1:{server.port}{path}", timeout=30, trust_env=False, **options)

        def score_and_label(width: int) -> int:
            image = encode(gradient(width, 8))
            answer = request("/score?include=", files={"file": image})
            assert answer.status_code == 200, answer.text
            label = {"id": answer.json()["results"][0]["id"], "verdict": "normal"}
            return request("/feedback", json=label).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(score_and_label, range(8, 56))) == {201}
    found = labels.read(path)
    assert (len(found.labels), found.unreadable) == (48, 0)


def test_sync_and_async_clients_send_labels(labelling_server: Server, label_file: Path) -> None:
    url = f"http://127.0.0.1:{labelling_server.port}"
    with AnomalyClient(url) as client:
        (image,) = client.score(encode(gradient(40, 8))).scored
        assert image.id is not None
        client.label(image.id, "anomaly", comment="sync")
        with pytest.raises(Problem, match="invalid answer id"):
            client.label("nonsense!", "normal")

    async def label_async(answer_id: str) -> None:
        async with AsyncAnomalyClient(url) as client:
            await client.label(answer_id, "normal", comment="async")

    asyncio.run(label_async(image.id))
    (label,) = (each for each in labels.read(label_file).labels if each.comment == "async")
    assert (label.score, label.verdict) == (image.score, "normal")


@pytest.mark.parametrize(
    ("change", "status", "problem"),
    [
        ({"id": "nonsense!"}, 404, "unknown-answer"),
        ({"id": ""}, 404, "unknown-answer"),
        ({"id": "é"}, 404, "unknown-answer"),
        ({"id": "AAAA" * 40}, 404, "unknown-answer"),
        ({"id": "A" * 3000}, 422, "invalid-label"),
        ({"id": 7}, 422, "invalid-label"),
        ({"verdict": "odd"}, 422, "invalid-label"),
        ({"verdict": None}, 422, "invalid-label"),
        ({"score": 0.0}, 422, "invalid-label"),
        ({"comment": "x" * 1001}, 422, "invalid-label"),
        ({"comment": "x" * LABEL_BODY_BYTES}, 413, "body-too-large"),
    ],
)
def test_invalid_label_is_refused_and_not_stored(
    change: dict[str, object],
    status: int,
    problem: str,
    labelling_server: Server,
    label_file: Path,
    document: dict[str, Any],
) -> None:
    before = label_file.read_bytes()
    answer_id = score(labelling_server, PNG)["results"][0]["id"]
    answer = labelling_server.client.post("/feedback", json={"id": answer_id, "verdict": "normal", **change})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:problem-type:{problem}")
    assert_documented(document, "/feedback", answer)
    assert label_file.read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"null", b"\xff", b'"x"', b"[" * 10_000])
def test_label_that_is_not_a_json_object_is_422(body: bytes, labelling_server: Server) -> None:
    assert labelling_server.client.post("/feedback", content=body).status_code == 422


class TestAnswerIds:
    def test_answer_ids_are_valid_after_a_restart(self, tmp_path: Path) -> None:
        answer_id = Feedback(tmp_path / "labels").id_of(ANSWER)
        assert Feedback(tmp_path / "labels").answer_of(answer_id) == ANSWER
        secret = tmp_path / "labels.key"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "labels.key"]

    def test_changed_answer_id_is_refused(self, tmp_path: Path) -> None:
        feedback = Feedback(tmp_path / "labels")
        answer_id = feedback.id_of(ANSWER)
        for position in range(len(answer_id)):
            replacement = "A" if answer_id[position] != "A" else "B"
            forged = answer_id[:position] + replacement + answer_id[position + 1 :]
            try:
                assert feedback.answer_of(forged) == ANSWER  # the unused bits of the last character
            except UnknownAnswer:
                continue
            assert position >= len(answer_id) - 3

    def test_answer_id_of_another_installation_is_refused(self, tmp_path: Path) -> None:
        answer_id = Feedback(tmp_path / "here" / "labels").id_of(ANSWER)
        with pytest.raises(UnknownAnswer, match="has not issued that answer id"):
            Feedback(tmp_path / "there" / "labels").answer_of(answer_id)

    def test_damaged_secret_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "labels.key").write_bytes(b"short")
        with pytest.raises(LabelNotKept, match="must hold a secret of 32 bytes"):
            Feedback(tmp_path / "labels")


def body(answer_id: str, verdict: str) -> bytes:
    return f'{{"id": "{answer_id}", "verdict": "{verdict}"}}'.encode()


def test_last_label_of_an_image_is_used_and_unreadable_lines_are_counted(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "labels")
    other = feedback.id_of(ANSWER.model_copy(update={"picture": "1" * 32}))
    same_again = feedback.id_of(ANSWER.model_copy(update={"request_id": "another", "index": 0}))
    for answer_id, verdict in ((feedback.id_of(ANSWER), "normal"), (other, "normal"), (same_again, "anomaly")):
        feedback.keep(body(answer_id, verdict))
    with feedback.path.open("ab") as file:
        file.write(b'{"model": "m", "ver\n\n')
    found = labels.read(feedback.path)
    assert [(label.picture[0], label.verdict) for label in found.labels] == [("0", "anomaly"), ("1", "normal")]
    assert found.unreadable == 1


def test_label_is_not_kept_if_the_file_is_full_or_the_folder_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = Feedback(tmp_path / "folder" / "labels")
    label = body(feedback.id_of(ANSWER), "normal")
    monkeypatch.setattr(labels, "MAX_FILE_BYTES", 400)
    feedback.keep(label)
    with pytest.raises(LabelNotKept, match="limit of 400 bytes"):
        feedback.keep(label)
    (tmp_path / "folder").rename(tmp_path / "moved")
    with pytest.raises(LabelNotKept, match="No such file or directory"):
        feedback.keep(label)


def test_label_after_a_full_disk_is_not_lost(tmp_path: Path) -> None:
    """The line that did not fit is not kept, and the next one is not glued to a part of it."""
    feedback = Feedback(tmp_path / "labels")
    ids = [feedback.id_of(ANSWER.model_copy(update={"picture": f"{number}" * 32})) for number in range(3)]
    feedback.keep(body(ids[0], "normal"))
    with (
        file_size_limit(feedback.path.stat().st_size + 30),
        pytest.raises(LabelNotKept, match="the label file cannot be written: File too large"),
    ):
        feedback.keep(body(ids[1], "normal"))
    feedback.keep(body(ids[2], "anomaly"))
    found = labels.read(feedback.path)
    assert [(label.picture[0], label.verdict) for label in found.labels] == [("0", "normal"), ("2", "anomaly")]
    assert found.unreadable == 0


def test_label_after_a_killed_process_is_not_lost(tmp_path: Path) -> None:
    feedback = Feedback(tmp_path / "labels")
    feedback.path.write_bytes(b'{"model": "m", "ver')
    feedback.keep(body(feedback.id_of(ANSWER), "normal"))
    found = labels.read(feedback.path)
    assert (len(found.labels), found.unreadable) == (1, 1)


def keep_labels(path: Path, worker: int) -> None:
    feedback = Feedback(path)
    for number in range(50):
        answer = ANSWER.model_copy(update={"picture": f"{worker * 50 + number:032x}"})
        feedback.keep(body(feedback.id_of(answer), "normal"))


def test_two_workers_label_at_once(tmp_path: Path) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("forkserver")) as workers:
        list(workers.map(partial(keep_labels, tmp_path / "labels"), range(2)))
    found = labels.read(tmp_path / "labels")
    assert (len(found.labels), found.unreadable) == (100, 0)


def test_label_is_not_kept_while_another_process_has_locked_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    feedback = Feedback(tmp_path / "labels")
    monkeypatch.setattr(labels, "_LOCK_S", 0.05)
    with feedback.path.open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(LabelNotKept, match="another process has locked it"):
            feedback.keep(body(feedback.id_of(ANSWER), "normal"))
    feedback.keep(body(feedback.id_of(ANSWER), "normal"))
