"""Dry runs of many configurations in one process: starting Python is most of one dry run."""

import contextlib
import io
import json
import re
import sys

from snakemake.cli import main


def jobs(home, work, config):
    """Rule, experiment and encoder of every job that a dry run would start."""
    printed = io.StringIO()
    flags = ["-s", f"{home}/Snakefile", "--configfile", config, "-d", work, "--cores", "2"]
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        try:
            main([*flags, "--dry-run", "--nolock", "all"])
        except SystemExit as ended:
            if ended.code:
                raise RuntimeError(printed.getvalue()[-3000:]) from None
    found = set()
    for block in re.split(r"\n(?=(?:local)?rule \w+:)", printed.getvalue())[1:]:
        rule = re.match(r"(?:local)?rule (\w+):", block)[1]
        told = re.search(r"^ {4}wildcards: (.*)$", block, re.MULTILINE)
        names = dict(one.split("=", 1) for one in told[1].split(", ")) if told else {}
        found.add((rule, names.get("experiment"), names.get("encoder")))
    return sorted(found, key=str)


if __name__ == "__main__":
    home, work, *configs = sys.argv[1:]
    json.dump([jobs(home, work, config) for config in configs], sys.stdout)
