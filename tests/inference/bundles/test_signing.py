"""What a trusted store refuses, and that it refuses before anything of the version is run."""

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
    """An ordinary store: nothing is signed yet."""
    store = ModelStore(tmp_path / "store")
    for name, seed in (("m", 1), ("other", 2)):
        store.publish(*make_bundle(name, seed=seed, version="v1"))
    return store


def trusting(store: ModelStore, *keys: SigningKey) -> ModelStore:
    return ModelStore(store.root, TrustedKeys([key.public for key in keys]))


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The archives that were run."""
    archives: list[bytes] = []
    load = torchscript.load

    def spy(archive: bytes) -> torchscript.ScoringModel:
        archives.append(archive)
        return load(archive)

    monkeypatch.setattr(torchscript, "load", spy)
    return archives


def refusal(store: ModelStore, name: str = "m") -> str:
    with pytest.raises(BundleRejected) as caught:
        store.load(name, "v1")
    text = str(caught.value)
    assert text.startswith(f"{name}/v1: ")
    assert "\n" not in text
    with pytest.raises(BundleRejected, match=r"."):
        store.activate(name, "v1")
    return text.removeprefix(f"{name}/v1: ")


def test_what_a_trusted_key_has_signed_is_loaded(store: ModelStore, key: SigningKey) -> None:
    store.sign("m", "v1", key)
    trusted = trusting(store, key)
    assert trusted.load("m", "v1").manifest == store.load("m", "v1").manifest
    assert trusted.manifest("m") == store.manifest("m")
    trusted.activate("m", "v1")


def test_no_signature(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    assert refusal(trusting(store, key)).startswith("manifest.sig is missing")
    with pytest.raises(BundleRejected, match=r"^m/v1: manifest\.sig is missing"):
        trusting(store, key).manifest("m")
    assert loaded == []


def test_another_key(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    stranger = SigningKey.generate()
    store.sign("m", "v1", stranger)
    assert stranger.id in refusal(trusting(store, key))
    assert loaded == []


def test_another_key_under_the_name_of_the_trusted_one(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    stranger = SigningKey.generate()
    store.sign("m", "v1", stranger)
    file = store.root / "m" / "v1" / "manifest.sig"
    file.write_bytes(file.read_bytes().replace(stranger.id.encode(), key.id.encode()))
    assert refusal(trusting(store, key)) == "manifest.json is not what was signed: manifest.sig does not fit it"
    assert loaded == []


@pytest.mark.parametrize("file", ["model.pt", "report/loss.png"])
def test_a_changed_file_and_a_manifest_that_vouches_for_it(
    file: str, store: ModelStore, key: SigningKey, loaded: list[bytes]
) -> None:
    """What checksums alone let pass: whoever can write one file can write the other."""
    store.sign("m", "v1", key)
    manifest, files = store.manifest("m"), make_bundle("m", seed=9)[1]
    content = files["model.pt"]
    records = {**manifest.files, file: file_record(content)}
    directory = store.root / "m" / "v1"
    (directory / file).write_bytes(content)
    assert refusal(trusting(store, key)).startswith(f"{file} ")
    (directory / "manifest.json").write_bytes(manifest.model_copy(update={"files": records}).to_bytes())
    store.manifest("m")  # its seal is in order
    loaded.clear()
    assert refusal(trusting(store, key)).startswith("manifest.json is not what was signed")
    assert loaded == []


def test_the_signed_manifest_of_another_model(store: ModelStore, key: SigningKey, loaded: list[bytes]) -> None:
    store.sign("other", "v1", key)
    shutil.rmtree(store.root / "m" / "v1")
    shutil.copytree(store.root / "other" / "v1", store.root / "m" / "v1")
    assert refusal(trusting(store, key)) == "manifest.json belongs to other/v1, but lies in m/v1"
    assert loaded == []


def test_an_old_version_under_the_name_of_a_new_one(store: ModelStore, key: SigningKey) -> None:
    store.publish(*make_bundle("m", seed=3, version="v2"), key)
    store.sign("m", "v1", key)
    shutil.rmtree(store.root / "m" / "v2")
    shutil.copytree(store.root / "m" / "v1", store.root / "m" / "v2")
    with pytest.raises(BundleRejected, match=r"^m/v2: manifest\.json belongs to m/v1"):
        trusting(store, key).load("m", "v2")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"", "manifest.sig is no signature"),
        (b"\xff\xfe", "manifest.sig is no signature"),
        (b"ed25519 abc", "manifest.sig is no signature"),
        (b"ed25519 abc !!!!", "manifest.sig is no signature"),
        (b"rsa abc AAAA", "manifest.sig is of the kind 'rsa'"),
        (b"a" * 5000, "manifest.sig is larger than"),
    ],
)
def test_what_is_no_signature(content: bytes, text: str, store: ModelStore, key: SigningKey) -> None:
    (store.root / "m" / "v1" / "manifest.sig").write_bytes(content)
    assert refusal(trusting(store, key)).startswith(text)


def test_a_manifest_is_not_read_before_its_signature(store: ModelStore, key: SigningKey) -> None:
    store.sign("m", "v1", key)
    (store.root / "m" / "v1" / "manifest.json").write_bytes(b"[" * 100_000)
    assert refusal(trusting(store, key)).startswith("manifest.json is not what was signed")


def test_two_keys_while_one_replaces_the_other(store: ModelStore, key: SigningKey) -> None:
    successor = SigningKey.generate()
    store.sign("m", "v1", key)
    store.sign("other", "v1", successor)
    both = trusting(store, key, successor)
    for name in ("m", "other"):
        both.load(name, "v1")
    store.sign("m", "v1", successor)
    trusting(store, successor).load("m", "v1")
    assert refusal(trusting(store, key)).startswith("manifest.sig was made with key")


def test_published_with_its_signature(store: ModelStore, key: SigningKey) -> None:
    trusted = trusting(store, key)
    trusted.publish(*make_bundle("m", version="v2"), key)
    assert trusted.load("m", trusted.current("m")).manifest.version == "v2"
    with pytest.raises(BundleRejected, match=r"manifest\.sig is missing"):
        trusted.publish(*make_bundle("m", version="v3"))
    assert store.current("m") == "v2"


def test_what_is_broken_or_absent_is_not_signed_and_nothing_is_run(
    store: ModelStore, key: SigningKey, loaded: list[bytes]
) -> None:
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
    def test_a_comma_list_a_file_and_pem(self, key: SigningKey) -> None:
        other = SigningKey.generate()
        assert parse_public_keys(f" {key.public}, {other.public},") == (key.public, other.public)
        assert parse_public_keys(f"# ours\n{key.public}  # gate 1\n\n{other.public}\n") == (key.public, other.public)
        assert parse_public_keys((key.public_pem() + other.public_pem()).decode()) == (key.public, other.public)

    def test_keys_that_openssl_makes(self, tmp_path: Path, store: ModelStore) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("there is no openssl")
        private = tmp_path / "private.pem"
        subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", private], check=True)
        public = subprocess.run(
            ["openssl", "pkey", "-in", private, "-pubout"], check=True, capture_output=True, text=True
        ).stdout
        store.sign("m", "v1", SigningKey.from_pem(private.read_bytes()))
        ModelStore(store.root, TrustedKeys(parse_public_keys(public))).load("m", "v1")

    def test_a_key_pair_survives_its_files(self, key: SigningKey) -> None:
        again = SigningKey.from_pem(key.to_pem())
        assert (again.id, again.public) == (key.id, key.public)

    def test_a_private_key_is_neither_trusted_nor_quoted(self, key: SigningKey) -> None:
        secret = key.to_pem().decode().splitlines()[1]
        for text in (key.to_pem().decode(), secret):
            with pytest.raises(UnusableKey) as caught:
                parse_public_keys(text)
            assert secret[-20:] not in str(caught.value)

    def test_other_kinds_of_keys_are_refused(self) -> None:
        for private in (rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())):
            public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
            with pytest.raises(UnusableKey):
                parse_public_keys("".join(public.decode().splitlines()[1:-1]))
            with pytest.raises(UnusableKey, match="not Ed25519"):
                SigningKey.from_pem(private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    def test_nothing_is_no_key(self) -> None:
        assert parse_public_keys("# nothing\n,") == ()
        with pytest.raises(UnusableKey):
            TrustedKeys(())
        with pytest.raises(UnusableKey, match="no private key in PEM"):
            SigningKey.from_pem(b"nonsense")
