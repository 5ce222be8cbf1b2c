"""File names beyond ASCII, in forms and with raw bodies."""

import time

import pytest

from app.api.http.body.filenames import filename_of, readable
from tests.support import Server, encode, gradient

PNG = encode(gradient())


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ("filename*=UTF-8''na%C3%AFve.png", "naïve.png"),
        ("filename*=utf-8'en'%e2%82%ac%20rates.png", "€ rates.png"),
        ("FILENAME*=iso-8859-1''na%EFve.png", "naïve.png"),
        ("filename*=\"UTF-8''na%C3%AFve.png\"", "naïve.png"),
        ("filename=\"naive.png\"; filename*=UTF-8''na%C3%AFve.png", "naïve.png"),
        ("filename*=UTF-8''na%C3%AFve.png; filename=naive.png", "naïve.png"),
        ("filename=naive.png; filename*=UTF-8''na%EFve.png", "naive.png"),  # not UTF-8
        ("filename=naive.png; filename*=klingon''na%C3%AFve.png", "naive.png"),
        ("filename=naive.png; filename*=naïve.png", "naive.png"),
        ("filename=naive.png; filename*=", "naive.png"),
        ("filename=\"a; filename*=UTF-8''b.png\"", "a; filename*=UTF-8''b.png"),
        ('filename="=?UTF-8?B?bmHDr3ZlLnBuZw==?="', "naïve.png"),
        ('filename="=?utf-8?Q?na=C3=AF?= =?iso-8859-1?q?ve=2Epng?="', "naïve.png"),
        ('filename="=?UTF-8?Q?na=C3=AFve_image?=.png"', "naïve image.png"),
        ('filename="=?klingon?Q?na=C3=AFve?="', "=?klingon?Q?na=C3=AFve?="),
        ('filename="=?UTF-8?B?b?="', "=?UTF-8?B?b?="),
        ('filename="=?hex?q?00?="', "=?hex?q?00?="),
        ('filename="naïve.png"', "naïve.png"),
        ('filename=""', None),
        ("", None),
    ],
)
def test_filename_of_a_disposition(parameters: str, name: str | None) -> None:
    assert filename_of(f'form-data; name="file"; {parameters}'.encode()) == name


def test_long_filenames_are_not_decoded_at_length() -> None:
    """Some codecs are quadratic."""
    began = time.process_time()
    word = f"=?punycode?q?{'a-' * 10**6}?=".encode()
    assert readable(word) == word.decode()
    quotes = b'form-data; filename*=";a="\\' + b';a="\\' * 10**5
    filename_of(quotes)
    assert time.process_time() - began < 2


def form(*dispositions: str) -> dict[str, object]:
    parts = [
        f"--x\r\nContent-Disposition: form-data; name=file; {each}\r\n\r\n".encode() + PNG for each in dispositions
    ]
    body = b"\r\n".join([*parts, b"--x--\r\n"])
    return {"content": body, "headers": {"Content-Type": "multipart/form-data; boundary=x"}}


def test_filenames_are_in_the_answer(server: Server) -> None:
    options = form(
        "filename*=UTF-8''one%20%C3%AF.png", 'filename="=?UTF-8?B?dHdvIMOvLnBuZw==?="', 'filename="three ï.png"'
    )
    answer = server.client.post("/score?include=", **options).json()  # type: ignore[arg-type]
    assert [each["filename"] for each in answer["results"]] == ["one ï.png", "two ï.png", "three ï.png"]


def test_encoded_words_in_a_simple_form_are_read(server: Server) -> None:
    """httpx writes forms that the fast path splits."""
    answer = server.client.post("/score?include=", files={"file": ("=?UTF-8?B?dHdvIMOvLnBuZw==?=", PNG)}).json()
    assert answer["results"][0]["filename"] == "two ï.png"


def test_raw_body_has_the_filename_of_its_disposition(server: Server) -> None:
    headers = {"Content-Type": "image/png", "Content-Disposition": "attachment; filename*=UTF-8''na%C3%AFve.png"}
    (result,) = server.client.post("/score?include=", content=PNG, headers=headers).json()["results"]
    assert result["filename"] == "naïve.png"
