"""``keygen`` and ``sign``, and a service that loads signed versions only."""

import stat
import time
from pathlib import Path

import pytest

from app.inference.bundles.store import ModelStore
from tests.support import Server, encode, gradient, make_bundle, running_server
from tests.training.cli.test_store import flip_a_bit, wait_for_version
from training.__main__ import main
from training.cli.key_files import signing_key


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "keys" / "ours"
    assert main(["keygen", str(path)]) == 0
    return path


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    store = ModelStore(tmp_path / "store")
    store.publish(*make_bundle("m", seed=1, version="v1"))
    return store


def test_keygen_writes_a_private_key_for_its_owner_and_never_overwrites(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key = tmp_path / "keys" / "ours"
    assert main(["keygen", str(key)]) == 0
    out = capsys.readouterr().out
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert signing_key(str(key)).public in out
    assert f"ANOMALY_TRUSTED_KEYS={key}.pub" in out
    before = key.read_bytes()
    assert "PRIVATE KEY" in before.decode()
    assert before.decode().splitlines()[1] not in out
    assert main(["keygen", str(key)]) == 1
    assert capsys.readouterr().err == f"error: {key} already exists; keys are never overwritten\n"
    assert key.read_bytes() == before


def test_sign_and_verify(key: Path, store: ModelStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--store", str(store.root)]
    verify = ["verify", *where, "--trusted-keys", f"{key}.pub"]
    assert main(verify) == 1
    assert "REFUSED  m/v1: manifest.sig is missing" in capsys.readouterr().out
    assert main(["sign", "m", *where, "--key", str(key)]) == 0
    assert capsys.readouterr().out == f"m v1 is signed with key {signing_key(str(key)).id}\n"
    assert main(verify) == 0
    assert main(["verify", *where]) == 0
    assert main(["keygen", str(tmp_path / "theirs")]) == 0
    assert main(["activate", "m", "v1", *where, "--trusted-keys", f"{tmp_path / 'theirs'}.pub"]) == 1
    assert "which is not trusted" in capsys.readouterr().err
    flip_a_bit(store.root / "m" / "v1" / "model.pt")
    assert main(["sign", "m", "v1", *where, "--key", str(key)]) == 1
    assert capsys.readouterr().err.startswith("error: m/v1: model.pt ")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["sign", "m"], "the following arguments are required: --key"),
        (["sign", "m", "--key", "nowhere"], "'nowhere' cannot be read"),
        (["sign", "m", "--key", __file__], "not a private key in PEM format"),
        (["verify", "--trusted-keys", "nowhere"], "neither a file nor an Ed25519 public key"),
        (["verify", "--trusted-keys", ","], "no public key found"),
        (["--data", "digits", "--sign-key", "nowhere"], "'nowhere' cannot be read"),
    ],
)
def test_usage_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_service_with_trusted_keys_serves_signed_versions_only(key: Path, store: ModelStore, tmp_path: Path) -> None:
    where = ["--store", str(store.root)]
    sign = ["sign", "m", *where, "--key", str(key)]
    with running_server(store.root, tmp_path / "log", ready=False, model="m", trusted_keys=f"{key}.pub") as server:
        refused = server.wait_for("/health", 503).json()
        wait_for_refusal(server, "m/v1: manifest.sig is missing")
        assert refused["status"] in {"starting", "unavailable"}
        assert server.client.get("/models/m").status_code == 503
        assert server.client.post("/score", files={"file": encode(gradient())}).status_code == 503

        assert main(sign) == 0
        server.wait_for("/health/ready", 200)
        store.publish(*make_bundle("m", seed=2, version="v2"))
        wait_for_refusal(server, "m/v2: manifest.sig is missing")
        answer = server.client.post("/score?include=", files={"file": encode(gradient())})
        assert answer.json()["model"]["version"] == "v1"

        assert main(sign) == 0
        wait_for_version(server, "v2")
        assert server.client.get("/health").json()["refused"] == []
        assert main(["activate", "m", "v1", *where, "--trusted-keys", f"{key}.pub"]) == 0
        wait_for_version(server, "v1")


def wait_for_refusal(server: Server, reason: str) -> None:
    deadline = time.monotonic() + 60
    while not any(each["reason"].startswith(reason) for each in server.client.get("/health").json()["refused"]):
        assert time.monotonic() < deadline, f"/health does not show: {reason}"
        time.sleep(0.05)
