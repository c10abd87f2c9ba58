"""Fixtures of all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine must not fail a test: no example has a time limit.
settings.register_profile("phenopipe", deadline=None)
settings.load_profile("phenopipe")

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture(scope="session")
def root() -> Path:
    """Folder of the repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the real data and golden numbers, which the repository never contains."""
    if not SHARED.is_dir():
        if os.environ.get("PHENOPIPE_REQUIRE_SHARED") == "1":
            pytest.fail(f"{SHARED} is wanted (PHENOPIPE_REQUIRE_SHARED=1) and absent")
        pytest.skip(f"no real data at {SHARED}")
    return SHARED
