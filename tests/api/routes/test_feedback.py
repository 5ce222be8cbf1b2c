"""Labels: whose ids count, and what is kept."""

import asyncio
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.api.errors import UnknownAnswer
from app.api.feedback import LABEL_BODY_BYTES, Feedback
from app.client import AnomalyClient, AsyncAnomalyClient, Problem
from app.inference.bundles import labels
from app.inference.bundles.labels import Answer
from app.inference.errors import LabelNotKept
from tests.api.openapi.test_document import hold
from tests.support import Server, encode, gradient, running_server

PNG = encode(gradient())

ANSWER = Answer(model="m", version="v1", mse=0.25, score=0.5, threshold=0.4, picture="0" * 32, request_id="r", index=3)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("feedback") / "made by the service" / "labels.jsonl"


@pytest.fixture(scope="module")
def keeping(store: Path, file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that keeps labels."""
    log = tmp_path_factory.mktemp("log") / "log"
    with running_server(store, log, model="digits-5", feedback_path=file) as server:
        yield server


@pytest.fixture(scope="module")
def document(keeping: Server) -> dict[str, Any]:
    described: dict[str, Any] = keeping.client.get("/openapi.json").json()
    return described


def score(server: Server, *files: bytes, **query: float) -> dict[str, Any]:
    answer = server.client.post("/score", params={"include": "", **query}, files=[("file", file) for file in files])
    body: dict[str, Any] = answer.json()
    return {**body, "request_id": answer.headers["X-Request-ID"]}


def test_off_nothing_has_an_id_and_labels_are_refused(server: Server) -> None:
    assert "id" not in score(server, PNG)["results"][0]
    answer = server.client.post("/feedback", json={"id": "x", "verdict": "normal"})
    assert answer.status_code == 404
    problem = answer.json()
    assert problem["type"] == "urn:problem-type:feedback-off"
    assert "ANOMALY_FEEDBACK_PATH" in problem["detail"]


def test_a_label_is_kept_beside_what_the_service_said(keeping: Server, file: Path, document: dict[str, Any]) -> None:
    answer = score(keeping, b"no image", PNG, false_alarm_rate=0.5)
    rejected, scored = answer["results"]
    assert "id" not in rejected
    said = {"id": scored["id"], "verdict": "normal", "filename": "a.png", "comment": 'dust\n"on" the lens'}
    kept = keeping.client.post("/feedback", json=said)
    assert kept.status_code == 201
    hold(document, "/feedback", kept)
    assert {key: kept.json()[key] for key in ("score", "said", "verdict", "model")} == {
        "score": scored["score"],
        "said": scored["verdict"],
        "verdict": "normal",
        "model": answer["model"],
    }
    (label,) = (each for each in labels.read(file).labels if each.comment == said["comment"])
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
        "comment": said["comment"],
    }


def test_processes_that_start_together_share_one_secret_and_tear_no_line(tmp_path: Path) -> None:
    """As workers do: each opens the file for itself, and takes the ids that any other has given."""
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


def test_an_answer_of_one_worker_is_labelled_at_another(store: Path, tmp_path: Path) -> None:
    """Each request has a connection of its own: the kernel gives it to either process."""
    path = tmp_path / "labels"
    with running_server(store, tmp_path / "log", model="digits-5", workers=2, feedback_path=path) as server:

        def ask(path: str, **options: Any) -> httpx.Response:
            return httpx.post(f"http://127.0.0.1:{server.port}{path}", timeout=30, trust_env=False, **options)

        def score_and_label(width: int) -> int:
            image = encode(gradient(width, 8))
            answer = ask("/score?include=", files={"file": image})
            assert answer.status_code == 200, answer.text
            said = {"id": answer.json()["results"][0]["id"], "verdict": "normal"}
            return ask("/feedback", json=said).status_code

        with ThreadPoolExecutor(8) as pool:
            assert set(pool.map(score_and_label, range(8, 56))) == {201}
    found = labels.read(path)
    assert (len(found.labels), found.unreadable) == (48, 0)


def test_both_clients_label(keeping: Server, file: Path) -> None:
    url = f"http://127.0.0.1:{keeping.port}"
    with AnomalyClient(url) as client:
        (image,) = client.score(encode(gradient(40, 8))).scored
        assert image.id is not None
        client.label(image.id, "anomaly", comment="sync")
        with pytest.raises(Problem, match="no id of an answer"):
            client.label("nonsense!", "normal")

    async def again(answer_id: str) -> None:
        async with AsyncAnomalyClient(url) as client:
            await client.label(answer_id, "normal", comment="async")

    asyncio.run(again(image.id))
    (label,) = (each for each in labels.read(file).labels if each.comment == "async")
    assert (label.score, label.verdict) == (image.score, "normal")


@pytest.mark.parametrize(
    ("change", "status", "kind"),
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
def test_what_is_no_label_is_refused_and_nothing_is_kept(
    change: dict[str, object], status: int, kind: str, keeping: Server, file: Path, document: dict[str, Any]
) -> None:
    before = file.read_bytes()
    answer_id = score(keeping, PNG)["results"][0]["id"]
    answer = keeping.client.post("/feedback", json={"id": answer_id, "verdict": "normal", **change})
    assert (answer.status_code, answer.json()["type"]) == (status, f"urn:problem-type:{kind}")
    hold(document, "/feedback", answer)
    assert file.read_bytes() == before


@pytest.mark.parametrize("body", [b"", b"[", b"[]", b"null", b"\xff", b'"x"', b"[" * 10_000])
def test_bodies_that_are_no_json_object(body: bytes, keeping: Server) -> None:
    assert keeping.client.post("/feedback", content=body).status_code == 422


class TestIds:
    def test_they_outlive_the_process(self, tmp_path: Path) -> None:
        answer_id = Feedback(tmp_path / "labels").id_of(ANSWER)
        assert Feedback(tmp_path / "labels").answer_of(answer_id) == ANSWER
        secret = tmp_path / "labels.key"
        assert secret.stat().st_mode & 0o777 == 0o600
        assert sorted(path.name for path in tmp_path.iterdir()) == ["labels", "labels.key"]

    def test_no_bit_of_one_can_be_changed(self, tmp_path: Path) -> None:
        feedback = Feedback(tmp_path / "labels")
        answer_id = feedback.id_of(ANSWER)
        for place in range(len(answer_id)):
            forged = answer_id[:place] + ("A" if answer_id[place] != "A" else "B") + answer_id[place + 1 :]
            try:
                assert feedback.answer_of(forged) == ANSWER  # the unused bits of the last character
            except UnknownAnswer:
                continue
            assert place >= len(answer_id) - 3

    def test_another_installation_does_not_know_them(self, tmp_path: Path) -> None:
        answer_id = Feedback(tmp_path / "here" / "labels").id_of(ANSWER)
        with pytest.raises(UnknownAnswer, match="no answer of this service"):
            Feedback(tmp_path / "there" / "labels").answer_of(answer_id)

    def test_a_damaged_secret_is_told(self, tmp_path: Path) -> None:
        (tmp_path / "labels.key").write_bytes(b"short")
        with pytest.raises(LabelNotKept, match="no secret of 32 bytes"):
            Feedback(tmp_path / "labels")


def body(answer_id: str, verdict: str) -> bytes:
    return f'{{"id": "{answer_id}", "verdict": "{verdict}"}}'.encode()


def test_of_several_labels_for_one_image_the_last_counts_and_broken_lines_are_counted(tmp_path: Path) -> None:
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


def test_a_full_file_or_an_absent_folder_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    feedback = Feedback(tmp_path / "folder" / "labels")
    said = body(feedback.id_of(ANSWER), "normal")
    monkeypatch.setattr(labels, "MAX_FILE_BYTES", 400)
    feedback.keep(said)
    with pytest.raises(LabelNotKept, match="has reached 400 bytes"):
        feedback.keep(said)
    (tmp_path / "folder").rename(tmp_path / "moved")
    with pytest.raises(LabelNotKept, match="No such file or directory"):
        feedback.keep(said)
