"""Operators' labels: each scored image's answer has an id, and whoever holds the id may say what the image was.

An id carries the answer itself and a code (HMAC, RFC 2104) that only this installation can make: the scores that
labels bring back cannot be forged, and neither memory nor a database is needed, whichever worker is asked, also after
a restart. The secret lies beside the file of labels, so that processes which share the file share it too.
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
from starlette.types import Scope

from app.api.errors import InvalidLabel, UnknownAnswer
from app.api.http.uploads import BodyReader, Upload
from app.inference.bundles.labels import Answer, Label, Verdict, append
from app.inference.errors import LabelNotKept

MAX_BODY_BYTES: Final = 16 * 1024

_SECRET_BYTES: Final = 32
_CODE_BYTES: Final = 16
_PURPOSE: Final = b"answer 1\n"

Id = Annotated[str, Field(max_length=2048, description="of the scored image, as its answer has it")]


class LabelBody(BaseModel):
    """What an operator says."""

    model_config = ConfigDict(extra="forbid")

    id: Id
    verdict: Verdict = Field(description="what the image really is")
    filename: str | None = Field(None, max_length=255, description="for people who read the file")
    comment: str | None = Field(None, max_length=1000, description="likewise")


class Feedback:
    """Makes ids, and keeps labels.

    Args:
        path: the file of labels; it and its folder are made.

    Raises:
        LabelNotKept: it cannot be written to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.intake = BodyReader(max_body_bytes=MAX_BODY_BYTES, max_files=0)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640))
            self._secret = _secret(path.with_name(f"{path.name}.key"))
        except OSError as error:
            raise LabelNotKept(f"labels cannot be kept there: {error.strerror}") from error

    def id_of(self, answer: Answer) -> str:
        """The id of an answer: anyone can read it, nobody else can make one."""
        content = orjson.dumps(list(answer.model_dump().values()))
        return base64.urlsafe_b64encode(self._code(content) + content).decode()

    def answer_of(self, answer_id: str) -> Answer:
        """What an id stands for.

        Raises:
            UnknownAnswer: it was not made here.
        """
        try:
            raw = base64.b64decode(answer_id.encode("ascii"), altchars=b"-_", validate=True)
        except (binascii.Error, UnicodeEncodeError) as error:
            raise UnknownAnswer("that is no id of an answer") from error
        code, content = raw[:_CODE_BYTES], raw[_CODE_BYTES:]
        if not hmac.compare_digest(code, self._code(content)):
            raise UnknownAnswer("no answer of this service has that id")
        return Answer(**dict(zip(Answer.model_fields, orjson.loads(content), strict=True)))

    def keep(self, body: bytes) -> Label:
        """Writes one label to the file. Blocks.

        Args:
            body: a :class:`LabelBody` as JSON.

        Raises:
            InvalidLabel: it is none.
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


def with_ids(
    feedback: Feedback | None, scope: Scope, uploads: Sequence[Upload], body: dict[str, Any]
) -> dict[str, Any]:
    """The answer to a request, with an id for each scored image if labels are kept.

    Args:
        feedback: makes them; None: labels are not kept.
        scope: of the request.
        uploads: the images.
        body: the answer, changed in place.
    """
    if feedback is None:
        return body
    for index, (upload, result) in enumerate(zip(uploads, body["results"], strict=True)):
        if result["status"] == "scored":
            answer = Answer(
                model=body["model"]["name"],
                version=body["model"]["version"],
                mse=result["mse"],
                score=result["score"],
                threshold=body["threshold"],
                picture=hashlib.blake2b(upload.data, digest_size=16).hexdigest(),
                request_id=scope["state"]["request_id"],
                index=index,
            )
            result["id"] = feedback.id_of(answer)
    return body


def _secret(path: Path) -> bytes:
    """Reads the secret, and makes it first where there is none; of several makers one wins."""
    if not path.exists():
        fresh = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(secrets.token_bytes(_SECRET_BYTES))
        with suppress(FileExistsError):
            path.hardlink_to(fresh)
        fresh.unlink()
    secret = path.read_bytes()
    if len(secret) != _SECRET_BYTES:
        raise LabelNotKept(f"{path} is no secret of {_SECRET_BYTES} bytes; remove it to get another")
    return secret
