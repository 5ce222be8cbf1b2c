"""Operators' labels: each scored image gets an answer id, and a label refers to it.

An id contains the answer and a message authentication code (HMAC, RFC 2104), so clients cannot forge the scores of
labels. No database is needed, and any worker accepts the id, also after a restart: the secret is stored next to the
label file and shared by all processes that share the file.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Final

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from app.api.errors import InvalidLabel, UnknownAnswer, validation_reasons
from app.api.http.body.json_images import decode_base64
from app.api.http.body.uploads import Upload
from app.api.labelled_images import LabelledImages
from app.inference.bundles.labels import Answer, Label, append
from app.inference.decisions.conformal import Verdict
from app.inference.errors import LabelNotKept, UnreadableImage

LABEL_BODY_BYTES: Final = 16 * 1024
"""Size of the largest label without its image."""

_SECRET_BYTES: Final = 32
_CODE_BYTES: Final = 16
_PURPOSE: Final = b"answer 1\n"

Id = Annotated[str, Field(max_length=2048, description="`id` of the scored image, as returned by `POST /score`")]


class LabelBody(BaseModel):
    """The body of ``POST /feedback``."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    verdict: Verdict = Field(description="what the image really shows")
    filename: str | None = Field(None, max_length=255, description="stored with the label, otherwise unused")
    comment: str | None = Field(None, max_length=1000, description="stored with the label, otherwise unused")
    operator: str | None = Field(None, max_length=100, description="who labels; stored with the label")
    image: str | None = Field(
        None,
        description="the image file that was scored, as base64 or as a data URI; only if the service stores images "
        "(`images_kept` of `GET /feedback`)",
    )


class Feedback:
    """Issues answer ids and stores labels.

    Args:
        path: the label file. The file, its folder and its secret are created if missing.
        images: stores the images that come with labels; None: images are not stored.

    Raises:
        LabelNotKept: the file or the secret cannot be written or read.
    """

    def __init__(self, path: Path, images: LabelledImages | None = None) -> None:
        self.path = path
        self.images = images
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
            self._secret = _secret(path.with_name(f"{path.name}.key"))
        except OSError as error:
            raise LabelNotKept(f"the label file cannot be written: {error.strerror}") from error

    def id_of(self, answer: Answer) -> str:
        """The id of an answer. It can be read by anyone, but not forged."""
        content = orjson.dumps(list(answer.model_dump().values()))
        return base64.urlsafe_b64encode(self._code(content) + content).decode()

    def answer_of(self, answer_id: str) -> Answer:
        """The answer that an id contains.

        Raises:
            UnknownAnswer: the id is invalid, or this service has not issued it.
        """
        try:
            raw = base64.b64decode(answer_id.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise UnknownAnswer("invalid answer id") from error
        code, content = raw[:_CODE_BYTES], raw[_CODE_BYTES:]
        if not hmac.compare_digest(code, self._code(content)):
            raise UnknownAnswer("this service has not issued that answer id")
        return Answer(**dict(zip(Answer.model_fields, orjson.loads(content), strict=True)))

    def keep(self, body: bytes) -> Label:
        """Stores the image if there is one, then appends a label to the file. Blocking.

        Args:
            body: a :class:`LabelBody` as JSON.

        Raises:
            InvalidLabel: the body is not valid, or its image is not the one that was scored.
            UnknownAnswer, LabelNotKept: as :meth:`answer_of`, :meth:`LabelledImages.keep` and ``append``.
        """
        try:
            given = LabelBody.model_validate_json(body)
        except ValidationError as error:
            raise InvalidLabel(validation_reasons(error, "body")[0]) from error
        answer = self.answer_of(given.id)
        label = Label(
            **answer.model_dump(),
            labelled_at=datetime.now(UTC),
            verdict=given.verdict,
            filename=given.filename,
            comment=given.comment,
            operator=given.operator,
            image=None if given.image is None else self._keep_image(given.image, answer),
        )
        append(self.path, label)
        return label

    def _keep_image(self, encoded: str, answer: Answer) -> str:
        """Stores the image of a label and returns its name. The hash in the answer tells that it is that image."""
        if self.images is None:
            raise InvalidLabel("image: images are not stored: ANOMALY_FEEDBACK_IMAGES is not set")
        try:
            data = decode_base64(encoded)
        except UnreadableImage as error:
            raise InvalidLabel(f"image: {error}") from error
        if _picture_of(data) != answer.picture:
            raise InvalidLabel("image: it is not the file that was scored")
        return self.images.keep(answer.picture, data)

    def _code(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + content, "sha256")[:_CODE_BYTES]


def add_ids(feedback: Feedback, request_id: str, uploads: Sequence[Upload], body: dict[str, Any]) -> None:
    """Adds an answer id to each scored image of a response.

    Args:
        feedback: issues the ids.
        request_id: of the request.
        uploads: the request's images.
        body: of the response; changed in place.
    """
    for index, (upload, result) in enumerate(zip(uploads, body["results"], strict=True)):
        if result["status"] == "scored":
            answer = Answer(
                model=body["model"]["name"],
                version=body["model"]["version"],
                mse=result["mse"],
                score=result["score"],
                threshold=body["threshold"],
                picture=_picture_of(upload.data),
                request_id=request_id,
                index=index,
            )
            result["id"] = feedback.id_of(answer)


def _picture_of(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _secret(path: Path) -> bytes:
    """Reads the secret, which is created if missing. Concurrent creators all get the secret of the first."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise LabelNotKept(f"{path} must hold a secret of {_SECRET_BYTES} bytes; remove it to have a new one created")
    return secret
