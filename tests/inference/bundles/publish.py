"""Publishes versions one after another. ``test_store`` runs it concurrently with other writers.

Usage: python -m tests.inference.bundles.publish STORE VERSIONS
"""

import sys
from pathlib import Path

from app.inference.bundles.store import ModelStore
from tests.support import make_bundle

if __name__ == "__main__":
    store = ModelStore(Path(sys.argv[1]))
    for _ in range(int(sys.argv[2])):
        store.publish(*make_bundle("m"))
