"""One made-up run and its page, shared by the tests of this folder."""

import pytest

from phenopipe.report.page import main
from tests.report.made_up_results import write_run


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return write_run(tmp_path_factory.mktemp("made_up"))


@pytest.fixture(scope="session")
def page(run):
    path = run.folder / "report" / "index.html"
    main([*run.flags(), "--page", str(path)])
    return path.read_text(encoding="utf-8")
