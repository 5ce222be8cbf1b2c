"""Operators' labels: the answer for each scored image has an id, and a label refers to it.

An id contains the answer and a message authentication code (HMAC, RFC 2104), so scores in labels cannot be forged. No
memory or database is needed: any worker accepts the id, also after a restart. The secret lies next to the file of
labels, and processes that share the file share it.
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

from app.api.errors import InvalidLabel, UnknownAnswer
from app.api.http.uploads import Upload
from app.inference.bundles.labels import Answer, Label, append
from app.inference.decisions.conformal import Verdict
from app.inference.errors import LabelNotKept

LABEL_BODY_BYTES: Final = 16 * 1024

_SECRET_BYTES: Final = 32
_CODE_BYTES: Final = 16
_PURPOSE: Final = b"answer 1\n"

Id = Annotated[str, Field(max_length=2048, description="of the scored image, from its answer")]


class LabelBody(BaseModel):
    """The body of a label."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    verdict: Verdict = Field(description="what the image really is")
    filename: str | None = Field(None, max_length=255, description="for people who read the file")
    comment: str | None = Field(None, max_length=1000, description="likewise")


class Feedback:
    """Issues ids and keeps labels.

    Args:
        path: the file of labels; it, its folder and the secret are created if missing.

    Raises:
        LabelNotKept: the file or the secret cannot be written or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
            self._secret = _secret(path.with_name(f"{path.name}.key"))
        except OSError as error:
            raise LabelNotKept(f"labels cannot be written there: {error.strerror}") from error

    def id_of(self, answer: Answer) -> str:
        """The id of an answer: readable by anyone, but it cannot be forged."""
        content = orjson.dumps(list(answer.model_dump().values()))
        return base64.urlsafe_b64encode(self._code(content) + content).decode()

    def answer_of(self, answer_id: str) -> Answer:
        """The answer that an id contains.

        Raises:
            UnknownAnswer: the id was not issued here.
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
        """Appends a label to the file. Blocks.

        Args:
            body: a :class:`LabelBody` as JSON.

        Raises:
            InvalidLabel: the body is not valid.
            UnknownAnswer, LabelNotKept: as :meth:`answer_of` and ``append``.
        """
        try:
            said = LabelBody.model_validate_json(body)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or "body"
            raise InvalidLabel(f"{where}: {first['msg']}") from error
        label = Label(
            **self.answer_of(said.id).model_dump(),
            labelled_at=datetime.now(UTC),
            verdict=said.verdict,
            filename=said.filename,
            comment=said.comment,
        )
        append(self.path, label)
        return label

    def _code(self, content: bytes) -> bytes:
        return hmac.digest(self._secret, _PURPOSE + content, "sha256")[:_CODE_BYTES]


def add_ids(feedback: Feedback, request_id: str, uploads: Sequence[Upload], body: dict[str, Any]) -> None:
    """Adds an id to each scored image of an answer.

    Args:
        feedback: makes the ids.
        request_id: of the request.
        uploads: the images.
        body: the answer, changed in place.
    """
    for index, (upload, result) in enumerate(zip(uploads, body["results"], strict=True)):
        if result["status"] == "scored":
            answer = Answer(
                model=body["model"]["name"],
                version=body["model"]["version"],
                mse=result["mse"],
                score=result["score"],
                threshold=body["threshold"],
                picture=hashlib.blake2b(upload.data, digest_size=16).hexdigest(),
                request_id=request_id,
                index=index,
            )
            result["id"] = feedback.id_of(answer)


def _secret(path: Path) -> bytes:
    """Reads the secret, creating it if missing; of several concurrent creators one wins."""
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
