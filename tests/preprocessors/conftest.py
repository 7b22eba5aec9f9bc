"""Triplets that several files of tests look at."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from preprocessors.edits.prepare import prepare_edits
from processors.metadata import SPLITS
from tests import triplets as small
from tests.sounds import make_mels_in_process


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    """A folder with Beds and Events, prepared, and triplets Made of them."""
    root = tmp_path_factory.mktemp("edits")
    with pytest.MonkeyPatch.context() as patch:
        make_mels_in_process(patch)
        small.write_sources(root)
        small.prepare_sources(root, "Beds", "Events")
        print(prepare_edits(small.edits_config(root), 1))
    return root


@pytest.fixture(scope="session")
def triplets(root) -> list[dict]:
    files = [root / "Made" / f"{split}.json" for split in SPLITS]
    return [record for file in files for record in json.loads(file.read_text())]
