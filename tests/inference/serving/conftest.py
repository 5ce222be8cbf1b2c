"""Fixtures of the serving tests."""

import pytest

from app.inference.bundles.bundle import Bundle
from app.inference.bundles.store import ModelStore
from tests.support import make_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A loaded bundle of an untrained network."""
    store = ModelStore(tmp_path_factory.mktemp("store"))
    store.publish(*make_bundle("a"))
    return store.load("a", store.current("a"))
