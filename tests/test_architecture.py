"""The house stands as DESIGN says: directions of imports, names that agree, small files."""

import ast
import re
from importlib import import_module
from pathlib import Path

import pytest

from phenopipe.steps import STEPS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "phenopipe"
STAGES = list(STEPS)
# What sees all stages at once: the configuration and its wiring; where jobs run; and the
# commands that look at a whole run from outside (before it, behind it, at a site).
ROOF = tuple(
    f"phenopipe.{name}"
    for name in (
        *("config", "crosschecks", "entries", "provenance", "steps", "wiring"),
        *("guess", "init", "site", "plan", "doctor", "failures", "lineage", "records"),
    )
)
RULES = {
    (stage, step): text
    for stage in STAGES
    for step, text in re.findall(
        rf"^rule {stage}_(\w+):\n(.*?)(?=^rule |\Z)",
        (ROOT / "rules" / f"{stage}.smk").read_text(),
        re.MULTILINE | re.DOTALL,
    )
}
EVERY_RULE = [pytest.param(*key, id="_".join(key)) for key in RULES]


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def within(module, packages):
    return any(module == p or module.startswith(p + ".") for p in packages)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_imports_no_other_stage_and_no_roof(stage):
    forbidden = {f"phenopipe.{s}" for s in STAGES if s != stage} | set(ROOF)
    for path in (PACKAGE / stage).rglob("*.py"):
        assert not [m for m in imported(path) if within(m, forbidden)], path


def test_ground_floor_imports_no_stage_and_no_roof():
    forbidden = {f"phenopipe.{s}" for s in STAGES} | set(ROOF)
    roof = {PACKAGE / f"{m.split('.')[1]}.py" for m in ROOF}
    ground = set(PACKAGE.rglob("*.py")) - roof
    for path in ground:
        if path.relative_to(PACKAGE).parts[0] not in STAGES:
            assert not [m for m in imported(path) if within(m, forbidden)], path


def test_only_the_rules_import_the_roof():
    users = [p for p in PACKAGE.rglob("*.py") if any(within(m, ROOF) for m in imported(p))]
    assert {p.name for p in users} <= {f"{m.split('.')[1]}.py" for m in ROOF}
    assert all(p.parent == PACKAGE for p in users)


@pytest.mark.parametrize("stage", STAGES)
def test_stage_has_rules_a_package_knobs_and_tests(stage):
    assert (ROOT / "rules" / f"{stage}.smk").exists()
    assert (PACKAGE / stage / "__init__.py").read_text().startswith('"""')
    assert (PACKAGE / stage / "config.py").exists()
    assert list((ROOT / "tests" / stage).glob("test_*.py"))


def test_every_rule_is_a_step_and_every_step_a_rule():
    assert set(RULES) == {(stage, step) for stage in STEPS for step in STEPS[stage]}


@pytest.mark.parametrize(("stage", "step"), EVERY_RULE)
def test_rule_calls_the_module_of_its_name_with_the_flags_that_it_knows(stage, step, capsys):
    text = RULES[stage, step]
    assert f"python -m phenopipe.{stage}.{step} " in text
    assert f'"logs/{stage}/{step}' in text
    assert f'"logs/benchmarks/{stage}/{step}' in text
    assert f'knobs=knobs("{stage}", "{step}")' in text
    for word in ("conda:", "threads:", "mem_mb=", "runtime=", "&>{log:q}"):
        assert word in text, word
    # In this process: one import of torch serves all steps.
    with pytest.raises(SystemExit) as done:
        import_module(f"phenopipe.{stage}.{step}").main(["--help"])
    assert done.value.code == 0
    known = set(re.findall(r"--([a-z0-9-]+)", capsys.readouterr().out))
    used = set(re.findall(r"^\s+--([a-z-]+) \{(?:input|output|wildcards)", text, re.MULTILINE))
    assert used <= known, used - known


@pytest.mark.parametrize("stage", STAGES)
def test_rule_params_are_knobs_and_source_or_version(stage):
    kind = "version=" if stage in ("embed", "pretrain") else f'source=source("{stage}")'
    texts = [text for (s, _), text in RULES.items() if s == stage]
    for text in texts:
        params = re.search(r"params:\n((?: {8}.*\n)+)", text)[1]
        assert params.count("\n") == 2 and kind in params


@pytest.mark.parametrize(
    ("knobs"),
    [pytest.param(k, id=f"{s}.{n}") for s, steps in STEPS.items() for n, k in steps.items()],
)
def test_every_knob_is_documented(knobs):
    for name, field in knobs.model_fields.items():
        assert field.description, name


def test_no_command_takes_a_flag_that_is_cut_short():
    parsers = ("ArgumentParser", "_Parser")
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith(parsers):
                assert "allow_abbrev=False" in map(ast.unparse, node.keywords), path


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: str(p.name))
def test_files_and_functions_stay_small(path):
    lines = path.read_text().count("\n")
    assert lines <= 400, f"{path}: {lines} lines"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and node.body:
            first = (
                node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            )
            length = node.end_lineno - first.lineno + 1
            assert length <= 60, f"{path}: {node.name} has {length} lines"
