"""Images that are stored with labels, and the lists of labels."""

import base64
import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson
import pytest

from app.api import labelled_images
from app.api.errors import UnknownAnswer
from app.api.labelled_images import LabelledImages
from app.inference.bundles import labels
from app.inference.errors import LabelNotKept
from tests.api.openapi.test_document import assert_documented
from tests.api.routes.test_feedback import ANSWER
from tests.full_disk import file_size_limit
from tests.support import Server, encode, gradient, running_server

PNG = encode(gradient(64, 48))
HASH = hashlib.blake2b(PNG, digest_size=16).hexdigest()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labelled")


@pytest.fixture(scope="module")
def keeping(store: Path, folder: Path) -> Iterator[Server]:
    """A server that keeps labels and their images."""
    labels, images = folder / "labels.jsonl", folder / "made" / "images"
    with running_server(
        store, folder / "log", model="digits-5", max_body_bytes=10**6, feedback_path=labels, feedback_images=images
    ) as server:
        yield server


def label(server: Server, file: bytes, image: bytes, **further: str) -> Any:
    (result,) = server.client.post("/score?include=", files={"file": file}).json()["results"]
    encoded = base64.b64encode(image).decode()
    return server.client.post("/feedback", json={"id": result["id"], "verdict": "anomaly", "image": encoded, **further})


def test_image_is_stored_under_its_hash_and_served_again(keeping: Server, folder: Path) -> None:
    document = keeping.client.get("/openapi.json").json()
    kept = label(keeping, PNG, PNG, operator="Kim", comment="scratch", filename="a.png")
    assert_documented(document, "/feedback", kept)
    assert kept.json()["image"] == f"{HASH}.png"
    again = label(keeping, PNG, PNG, operator="Lee")
    assert [path.name for path in (folder / "made" / "images").iterdir()] == [f"{HASH}.png"]
    served = keeping.client.get(f"/feedback/images/{again.json()['image']}")
    assert (served.content, served.headers["Content-Type"]) == (PNG, "image/png")
    assert served.headers["Content-Security-Policy"].startswith("sandbox")

    listed = keeping.client.get("/feedback")
    assert_documented(document, "/feedback", listed)
    body = listed.json()
    assert (body["kept"], body["images_kept"]) == (True, True)
    (last,) = [each for each in body["labels"] if each["image"]]  # of an image the last label counts
    assert (last["operator"], last["verdict"]) == ("Lee", "anomaly")
    lines = keeping.client.get("/feedback", headers={"Accept": "application/jsonl"})
    assert [orjson.loads(line)["operator"] for line in lines.text.splitlines()] == ["Kim", "Lee"]
    assert keeping.client.get("/feedback", headers={"Accept": "text/html"}).status_code == 406


def test_another_image_than_the_scored_one_is_refused(keeping: Server, folder: Path) -> None:
    before = (folder / "labels.jsonl").read_bytes()
    for image in (encode(gradient(9, 9)), b""):
        refused = label(keeping, PNG, image)
        assert (refused.status_code, "not the file that was scored" in refused.json()["detail"]) == (422, True)
    too_large = label(keeping, PNG, b"x" * 1_100_000)
    assert too_large.status_code == 413
    assert (folder / "labels.jsonl").read_bytes() == before


@pytest.mark.parametrize("name", ["nothing.png", f"{'0' * 32}.png", "..%2Flabels.jsonl", "%2e%2e%2flabels.jsonl.key"])
def test_only_stored_images_are_served(keeping: Server, name: str) -> None:
    assert keeping.client.get(f"/feedback/images/{name}").status_code == 404


def test_without_the_settings_nothing_is_stored(server: Server) -> None:
    assert server.client.get("/feedback").json() == {"kept": False, "images_kept": False, "labels": []}
    assert server.client.get("/feedback", headers={"Accept": "application/jsonl"}).text == ""
    assert server.client.get(f"/feedback/images/{HASH}.png").status_code == 404


def test_concurrent_writers_store_one_whole_file(tmp_path: Path) -> None:
    images = LabelledImages(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: images.keep(HASH, PNG), range(32))) == {f"{HASH}.png"}
    assert [path.name for path in tmp_path.iterdir()] == [f"{HASH}.png"]
    assert images.read(f"{HASH}.png") == (PNG, "image/png")


def test_full_disk_or_folder_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = LabelledImages(tmp_path)
    with file_size_limit(16), pytest.raises(LabelNotKept, match="cannot be written"):
        images.keep(HASH, PNG)
    monkeypatch.setattr(labelled_images, "MAX_FOLDER_BYTES", len(PNG) - 1)
    with pytest.raises(LabelNotKept, match="reached its limit"):
        images.keep(HASH, PNG)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UnknownAnswer):
        images.read(f"{HASH}.png")


def test_folder_that_cannot_be_made_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LabelNotKept, match="Not a directory"):
        LabelledImages(tmp_path / "file" / "images")


def test_latest_labels_are_the_newest_of_each_image(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    for number in (*range(5), 1):
        fields = {**ANSWER.model_dump(), "picture": f"{number:032x}", "verdict": "normal", "filename": None}
        fields |= {"labelled_at": "2026-11-27T10:00:00Z", "comment": str(number)}
        labels.append(path, labels.Label.model_validate(fields))
    with path.open("ab") as file:
        file.write(b"not a label" + os.linesep.encode())
    assert [each.comment for each in labels.latest(path, 3)] == ["1", "4", "3"]
    assert len(labels.latest(path, 100)) == 5
