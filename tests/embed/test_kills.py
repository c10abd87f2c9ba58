"""A killed job leaves no torn store, and its rerun the same bytes."""

import subprocess
import sys


def test_a_job_killed_at_random_moments_is_rerun_to_the_same_bytes(root):
    # The script that does it ten times; here three, of another seed.
    done = subprocess.run(
        [sys.executable, root / "benchmarks" / "embed_kills.py", "--kills=3", "--seed=7"],
        **{"capture_output": True, "text": True, "cwd": root},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "same bytes after kills: 3 of 3" in done.stdout
