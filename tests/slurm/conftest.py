"""A cluster for as long as the checks of this folder run, and copies of the workflow."""

import contextlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# Above 1 on a machine that has other work: by how much longer to wait for a run.
PATIENCE = float(os.environ.get("PHENOPIPE_PATIENCE", "1"))


def _load_cluster():
    spec = importlib.util.spec_from_file_location(
        "cluster", Path(__file__).parent / "cluster.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cluster(request):
    """The commands of cluster.py, with a cluster up; PHENOPIPE_ACCOUNTING=0: without sacct."""
    module = _load_cluster()
    # Whoever ends the tests early, a timeout of CI say, leaves no daemons behind.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    whole = False
    try:
        module.start(accounting=os.environ.get("PHENOPIPE_ACCOUNTING", "1") == "1")
        yield module
        whole = not request.session.testsfailed
    finally:
        if not whole:
            module.tell()
        module.stop()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="session")
def environment():
    """Variables of every command: this Python first, the site of the tests."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    accounting = os.environ.get("PHENOPIPE_ACCOUNTING", "1") == "1"
    return {
        **{k: v for k, v in os.environ.items() if k != "PYTHONPATH"},
        "PATH": path,
        "PHENOPIPE_SITE": str(ROOT / "tests" / "slurm" / "site.yaml"),
        "PHENOPIPE_STATUS": "sacct" if accounting else "squeue",
    }


@pytest.fixture(scope="session")
def copy(tmp_path_factory):
    """Make a copy of the workflow whose workflow_config.yaml is another file."""

    def make(name, config):
        folder = tmp_path_factory.mktemp(name)
        for part in ("Snakefile", "rules", "phenopipe", "envs", "profiles"):
            source, place = ROOT / part, folder / part
            if source.is_dir():
                shutil.copytree(source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, place)
        for profile in ("local", "slurm"):
            (folder / profile).symlink_to(f"profiles/{profile}")
        shutil.copy(config, folder / "workflow_config.yaml")
        return folder

    return make


@pytest.fixture(scope="session")
def run(environment):
    """Start a command in a folder; its output goes to a file beside the results."""
    started = []

    def start(folder, command, **more):
        log = (folder / "printed.txt").open("w")
        env = {**environment, "PYTHONPATH": str(folder), **more}
        process = subprocess.Popen(
            command.split(),
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        # Its jobs on this machine are of its group.
        for number in (signal.SIGTERM, signal.SIGKILL):
            if process.poll() is None:
                os.killpg(process.pid, number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(timeout=30)


@pytest.fixture(scope="session")
def finish():
    """Wait for a run that must end well; what it printed."""

    def wait(process, folder):
        code = process.wait(timeout=840 * PATIENCE)
        printed = (folder / "printed.txt").read_text()
        where = f"see {folder}/printed.txt and {folder}/logs"
        assert code == 0, f"{printed[-6000:]}\nexit code {code}; {where}"
        return printed

    return wait
