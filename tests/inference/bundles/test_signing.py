"""A store with trusted keys refuses versions without a valid signature, before any of their code runs."""

import shutil
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from app.inference.bundles import torchscript
from app.inference.bundles.bundle import file_record
from app.inference.bundles.signing import SigningKey, TrustedKeys, parse_public_keys
from app.inference.bundles.store import ModelStore
from app.inference.errors import BundleRejected, UnknownVersion, UnusableKey
from tests.support import make_bundle


@pytest.fixture
def key() -> SigningKey:
    return SigningKey.generate()


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store with two unsigned models."""
    store = ModelStore(tmp_path / "store")
    for name, seed in (("m", 1), ("other", 2)):
        store.publish(*make_bundle(name, seed=seed, version="v1"))
    return store


def trusting_store(store: ModelStore, *keys: SigningKey) -> ModelStore:
    return ModelStore(store.root, TrustedKeys([key.public for key in keys]))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The archives that were loaded, which runs their code."""
    archives: list[bytes] = []
    load = torchscript.load

    def spy(archive: bytes) -> torchscript.ScoringModel:
        archives.append(archive)
        return load(archive)

    monkeypatch.setattr(torchscript, "load", spy)
    return archives


def refusal(store: ModelStore, name: str = "m") -> str:
    """Why version v1 of a model can be neither loaded nor activated, without the prefix ``name/v1``."""
    with pytest.raises(BundleRejected) as caught:
        store.load(name, "v1")
    text = str(caught.value)
    assert text.startswith(f"{name}/v1: ")
    assert "\n" not in text
    with pytest.raises(BundleRejected, match=r"."):
        store.activate(name, "v1")
    return text.removeprefix(f"{name}/v1: ")


def test_version_signed_with_a_trusted_key_is_loaded(store: ModelStore, key: SigningKey) -> None:
    store.sign("m", "v1", key)
    trusted = trusting_store(store, key)
    assert trusted.load("m", "v1").manifest == store.load("m", "v1").manifest
    assert trusted.manifest("m") == store.manifest("m")
    trusted.activate("m", "v1")


def test_missing_signature(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    assert refusal(trusting_store(store, key)).startswith("manifest.sig is missing")
    with pytest.raises(BundleRejected, match=r"^m/v1: manifest\.sig is missing"):
        trusting_store(store, key).manifest("m")
    assert loaded == []


def test_signature_of_an_untrusted_key(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    untrusted = SigningKey.generate()
    store.sign("m", "v1", untrusted)
    assert untrusted.id in refusal(trusting_store(store, key))
    assert loaded == []


def test_signature_of_an_untrusted_key_with_a_trusted_key_id(
    store: ModelStore, key: SigningKey, loaded: list[bytes]
) -> None:
    untrusted = SigningKey.generate()
    store.sign("m", "v1", untrusted)
    file = store.root / "m" / "v1" / "manifest.sig"
    file.write_bytes(file.read_bytes().replace(untrusted.id.encode(), key.id.encode()))
    assert refusal(trusting_store(store, key)) == "manifest.json does not match its signature in manifest.sig"
    assert loaded == []


@pytest.mark.parametrize("file", ["model.pt", "report/loss.png"])
def test_changed_file_with_its_checksum_in_the_manifest(
    file: str, store: ModelStore, key: SigningKey, loaded: list[bytes]
) -> None:
    """Checksums alone do not detect this: whoever can write the file can also write the manifest."""
    store.sign("m", "v1", key)
    manifest, files = store.manifest("m"), make_bundle("m", seed=9)[1]
    content = files["model.pt"]
    records = {**manifest.files, file: file_record(content)}
    directory = store.root / "m" / "v1"
    (directory / file).write_bytes(content)
    assert refusal(trusting_store(store, key)).startswith(f"{file} ")
    (directory / "manifest.json").write_bytes(manifest.model_copy(update={"files": records}).to_bytes())
    store.manifest("m")  # its seal is valid
    loaded.clear()
    assert refusal(trusting_store(store, key)).startswith("manifest.json does not match its signature")
    assert loaded == []


def test_signed_files_of_another_model(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    store.sign("other", "v1", key)
    shutil.rmtree(store.root / "m" / "v1")
    shutil.copytree(store.root / "other" / "v1", store.root / "m" / "v1")
    assert (
        refusal(trusting_store(store, key))
        == "manifest.json belongs to another model or version, but is in the folder m/v1"
    )
    assert loaded == []


def test_signed_files_of_an_old_version_under_the_name_of_a_new_one(store: ModelStore, key: SigningKey) -> None:
    store.publish(*make_bundle("m", seed=3, version="v2"), key)
    store.sign("m", "v1", key)
    shutil.rmtree(store.root / "m" / "v2")
    shutil.copytree(store.root / "m" / "v1", store.root / "m" / "v2")
    with pytest.raises(BundleRejected, match=r"^m/v2: manifest\.json belongs to another model or version"):
        trusting_store(store, key).load("m", "v2")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "manifest.sig is not a valid signature"),
        (b"\xff\xfe", "manifest.sig is not a valid signature"),
        (b"ed25519 abc", "manifest.sig is not a valid signature"),
        (b"ed25519 abc !!!!", "manifest.sig is not a valid signature"),
        (b"rsa abc AAAA", "manifest.sig uses another algorithm"),
        (b"a" * 5000, "manifest.sig is larger than"),
    ],
)
def test_malformed_signature(content: bytes, text: str, store: ModelStore, key: SigningKey) -> None:
    (store.root / "m" / "v1" / "manifest.sig").write_bytes(content)
    assert refusal(trusting_store(store, key)).startswith(text)


def test_signature_is_verified_before_the_manifest_is_parsed(store: ModelStore, key: SigningKey) -> None:
    store.sign("m", "v1", key)
    (store.root / "m" / "v1" / "manifest.json").write_bytes(b"[" * 100_000)
    assert refusal(trusting_store(store, key)).startswith("manifest.json does not match its signature")


def test_key_rotation(store: ModelStore, key: SigningKey) -> None:
    new = SigningKey.generate()
    store.sign("m", "v1", key)
    store.sign("other", "v1", new)
    both = trusting_store(store, key, new)
    for name in ("m", "other"):
        both.load(name, "v1")
    store.sign("m", "v1", new)
    trusting_store(store, new).load("m", "v1")
    assert refusal(trusting_store(store, key)).startswith("manifest.sig was made with key")


def test_publishing_with_and_without_a_signature(store: ModelStore, key: SigningKey) -> None:
    trusted = trusting_store(store, key)
    trusted.publish(*make_bundle("m", version="v2"), key)
    assert trusted.load("m", trusted.current("m")).manifest.version == "v2"
    with pytest.raises(BundleRejected, match=r"manifest\.sig is missing"):
        trusted.publish(*make_bundle("m", version="v3"))
    assert store.current("m") == "v2"


def test_signing_a_changed_or_missing_version_fails(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    model = store.root / "m" / "v1" / "model.pt"
    model.write_bytes(model.read_bytes()[:-1] + b"?")
    with pytest.raises(BundleRejected, match=r"^m/v1: model\.pt "):
        store.sign("m", "v1", key)
    with pytest.raises(UnknownVersion):
        store.sign("m", "v9", key)
    store.sign("other", "v1", key)
    assert loaded == []
    assert sorted(path.name for path in (store.root / "m").iterdir()) == [".lock", "CURRENT", "v1"]
    assert not (store.root / "m" / "v1" / "manifest.sig").exists()


class TestKeys:
    def test_public_keys_as_comma_list_file_and_pem(self, key: SigningKey) -> None:
        other = SigningKey.generate()
        assert parse_public_keys(f" {key.public}, {other.public},") == (key.public, other.public)
        assert parse_public_keys(f"# ours\n{key.public}  # gate 1\n\n{other.public}\n") == (key.public, other.public)
        assert parse_public_keys((key.public_pem() + other.public_pem()).decode()) == (key.public, other.public)

    def test_keys_made_by_openssl(self, tmp_path: Path, store: ModelStore) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed")
        private = tmp_path / "private.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        public = subprocess.run(
            ["openssl", "pkey", "-in", private, "-pubout"], check=True, capture_output=True, text=True
        ).stdout
        store.sign("m", "v1", SigningKey.from_pem(private.read_bytes()))
        ModelStore(store.root, TrustedKeys(parse_public_keys(public))).load("m", "v1")

    def test_private_key_round_trip(self, key: SigningKey) -> None:
        read = SigningKey.from_pem(key.to_pem())
        assert (read.id, read.public) == (key.id, key.public)

    def test_private_key_instead_of_a_public_one_is_not_accepted_or_quoted(self, key: SigningKey) -> None:
        secret = key.to_pem().decode().splitlines()[1]
        for text in (key.to_pem().decode(), secret):
            with pytest.raises(UnusableKey) as caught:
                parse_public_keys(text)
            assert secret[-20:] not in str(caught.value)

    def test_keys_of_other_algorithms_are_not_accepted(self) -> None:
        for private in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            with pytest.raises(UnusableKey):
                parse_public_keys("".join(public.decode().splitlines()[1:-1]))
            with pytest.raises(UnusableKey, match="not Ed25519"):
                SigningKey.from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def test_empty_or_invalid_key(self) -> None:
        assert parse_public_keys("# nothing\n,") == ()
        with pytest.raises(UnusableKey):
            TrustedKeys(())
        with pytest.raises(UnusableKey, match="not a private key in PEM format"):
            SigningKey.from_pem(b"nonsense")
