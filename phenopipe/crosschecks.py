"""What the entries of a configuration say of each other, refused where it cannot hold.

Part of the roof, beside ``phenopipe/config.py``, which calls it before any job starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from phenopipe.entries import KEYS_OF_KIND, NAME, STEP_OF_KIND
from phenopipe.errors import UserError

if TYPE_CHECKING:
    from phenopipe.config import WorkflowConfig

GROUPS = ("screens", "encoders", "manifests", "probes", "benchmarks")
# Where the names are found that an encoder's keys give.
SECTION_OF_KEY = {
    "manifest": "manifests",
    "screen": "screens",
    "of": "encoders",
    "task": "probes",
    "initialize_from": "encoders",
}


def check_names(config: WorkflowConfig) -> None:
    """Refuse names that no folder can have, that nothing has, or that go in a circle."""
    _check_spelling(config)
    _check_keys(config)
    for where, section, name in _references(config):
        known = getattr(config, section)
        if name not in known:
            raise UserError(f"{where}: found {name!r}, wanted one of {section}: {list(known)}")
    _check_experiments(config)
    _check_cycles(config)


def check_uses(config: WorkflowConfig) -> None:
    """Refuse entries that do not fit each other, once the knobs of all are known."""
    _check_trimmed(config)
    _check_starts(config)
    _check_sources(config)
    _check_tests(config)
    _check_probes(config)


def _check_spelling(config: WorkflowConfig) -> None:
    given = {group: list(getattr(config, group)) for group in GROUPS}
    for name in config.screens:
        given[f"screens.{name}.experiments"] = list(config.experiments(name))
        given[f"screens.{name}.apply"] = list(config.applied(name))
    for where, names in given.items():
        for name in names:
            if not re.fullmatch(NAME, name):
                raise UserError(
                    f"{where}: found the name {name!r}, wanted letters of A-Z and a-z, digits,"
                    " _ and, after the first, . and -"
                )


def _check_keys(config: WorkflowConfig) -> None:
    """Refuse keys of an encoder that only another kind has."""
    for name, encoder in config.encoders.items():
        known = KEYS_OF_KIND.get(encoder.kind, ())
        for key in ("weights", *SECTION_OF_KEY):
            if key not in known and (value := getattr(encoder, key)) is not None:
                wanted = f"one of {', '.join(known)}" if known else "none"
                raise UserError(
                    f"encoders.{name}.{key}: no key of kind {encoder.kind!r} (found {value!r}),"
                    f" wanted {wanted}"
                )


def _references(config: WorkflowConfig) -> Iterator[tuple[str, str, str]]:
    """List every name that an entry gives to another: key path, section, name."""
    for name, encoder in config.encoders.items():
        default = {"weights": None, "initialize_from": None, "task": config.trim_by}
        for key in KEYS_OF_KIND.get(encoder.kind, ()):
            value = getattr(encoder, key) or default.get(key, "nothing")
            if key in SECTION_OF_KEY and value:
                yield f"encoders.{name}.{key}", SECTION_OF_KEY[key], value
    for name, manifest in config.manifests.items():
        for one in manifest.screens:
            yield f"manifests.{name}.screens", "screens", one
        for judge in manifest.judges:
            yield f"manifests.{name}.judges", "encoders", judge
    for group, entries in (("probes", config.probes), ("benchmarks", config.benchmarks)):
        for name, entry in entries.items():
            yield f"{group}.{name}.screen", "screens", entry.screen
            for encoder_name in entry.encoders:
                yield f"{group}.{name}.encoders", "encoders", encoder_name
    for name, one_test in config.benchmarks.items():
        judged = (one_test.recall or {}).get("manifest")
        if judged is not None:
            yield f"benchmarks.{name}.recall.manifest", "manifests", judged


def _check_experiments(config: WorkflowConfig) -> None:
    """Refuse experiments that are unknown, or that two of a kind share."""
    for name in config.screens:
        for experiment in set(config.experiments(name)) & set(config.applied(name)):
            raise UserError(
                f"screens.{name}.apply: {experiment!r} is among the screen's experiments too"
            )
    for name, manifest in config.manifests.items():
        if isinstance(manifest.screens, dict):
            for one, chosen in manifest.screens.items():
                unknown = set(chosen) - set(config.experiments(one))
                if unknown:
                    raise UserError(
                        f"manifests.{name}.screens.{one}: unknown experiments {sorted(unknown)}"
                    )
        screen_of: dict[str, str] = {}
        for one, experiment in config.drawn(name):
            if experiment in screen_of:
                raise UserError(
                    f"manifests.{name}.screens: {screen_of[experiment]!r} and {one!r} both have"
                    f" an experiment {experiment!r}, wanted another name in one of them"
                )
            screen_of[experiment] = one
    fitted = getattr(config.knobs("align", "fit"), "experiments", None) or ()
    known = {experiment for name in config.screens for experiment in config.experiments(name)}
    if unknown := set(fitted) - known:
        raise UserError(
            f"align.fit.experiments: {sorted(unknown)} are in no screen, wanted some of"
            f" {sorted(known)}"
        )


def _check_trimmed(config: WorkflowConfig) -> None:
    for name, encoder in config.encoders.items():
        if encoder.kind != "trimmed":
            continue
        whole = config.encoders[encoder.of or ""]
        if whole.kind in ("profiles", "random"):
            raise UserError(
                f"encoders.{name}.of: {encoder.of!r} of kind {whole.kind!r} has no blocks,"
                " wanted an encoder of images"
            )
        task = encoder.task or config.trim_by
        if encoder.of not in config.probes[task].encoders:
            raise UserError(
                f"encoders.{name}.of: {encoder.of!r} is not among the encoders of "
                f"probes.{task}, which chooses the block"
            )


def _check_starts(config: WorkflowConfig) -> None:
    """Refuse trainings that start from weights that cannot fit."""
    for name, encoder in config.encoders.items():
        if not encoder.initialize_from:
            continue
        where = f"encoders.{name}.initialize_from"
        start = config.encoders[encoder.initialize_from]
        if start.kind in ("pixels", "profiles", "random"):
            raise UserError(f"{where}: kind {start.kind!r} has no weights to start from")
        if {encoder.kind, start.kind} <= {"mae", "ca_mae", "dino"}:
            ours, theirs = (
                config.knobs(*STEP_OF_KIND[kind], encoder=one).architecture  # type: ignore[attr-defined]
                for kind, one in (
                    (encoder.kind, name),
                    (start.kind, encoder.initialize_from),
                )
            )
            for key, value in ours.items():
                if theirs[key] != value:
                    raise UserError(
                        f"{where}: {encoder.initialize_from} has {key} {theirs[key]!r},"
                        f" wanted {value!r} as here"
                    )


def _uses(config: WorkflowConfig) -> Iterator[tuple[str, str, str]]:
    """List every screen whose wells an encoder sees: key path, encoder, screen."""
    for group, entries in (("probes", config.probes), ("benchmarks", config.benchmarks)):
        for name, entry in entries.items():
            yield from (
                (f"{group}.{name}.encoders", one, entry.screen) for one in entry.encoders
            )
    for name, manifest in config.manifests.items():
        for judge in manifest.judges:
            yield from ((f"manifests.{name}.judges", judge, one) for one in manifest.screens)
    for name, encoder in config.encoders.items():
        if encoder.manifest:
            for one in config.manifests[encoder.manifest].screens:
                yield f"encoders.{name}.manifest", name, one
        if encoder.screen:
            yield f"encoders.{name}.screen", name, encoder.screen


def _check_sources(config: WorkflowConfig) -> None:
    """Refuse encoders of pixels where there are features alone, and the reverse."""
    for where, name, screen in _uses(config):
        kind, source = config.encoders[name].kind, config.screens[screen].source
        if kind != "random" and (kind == "profiles") != (source == "profiles"):
            wanted = (
                "kind profiles or random" if source == "profiles" else "one that reads images"
            )
            raise UserError(
                f"{where}: {name!r} of kind {kind} cannot read screen {screen!r} of source"
                f" {source}, wanted {wanted}"
            )


def _check_tests(config: WorkflowConfig) -> None:
    """Refuse tests of maps that need a table which their screen does not have."""
    for name, one in config.benchmarks.items():
        on_map = config.knobs("benchmark", "aggregate", benchmark=name)
        recall = (
            config.knobs("benchmark", "recall", benchmark=name)
            if one.recall is not None
            else None
        )
        needs = (
            ("arms", "genes", one.arms is not None),
            ("aggregate.arms_on", "genes", getattr(on_map, "arms_on", "") == "map"),
            ("recall.keep", "genes", getattr(recall, "keep", "") == "expressed"),
            ("compounds", "interactions", one.compounds is not None),
        )
        for key, table, is_needed in needs:
            if is_needed and not config.screens[one.screen].knows(table):
                raise UserError(
                    f"benchmarks.{name}.{key}: screen {one.screen!r} has no table of {table},"
                    f" wanted screens.{one.screen}.{table}"
                )
        judged = str(getattr(recall, "manifest", None))
        if getattr(recall, "keep", "") == "phenoprint" and not config.manifests[judged].judges:
            raise UserError(
                f"benchmarks.{name}.recall.manifest: {judged!r} has no judges, wanted one whose"
                " judges say which genes have a phenoprint"
            )


def _check_probes(config: WorkflowConfig) -> None:
    """Refuse probes that lack an experiment on either side, or the groups of their genes."""
    for name, one in config.probes.items():
        knobs = config.knobs("probe", "blocks", task=name)
        known = list(config.experiments(one.screen))
        for side in ("train", "test"):
            named = getattr(knobs, side)
            if not named or set(named) - set(known):
                raise UserError(
                    f"probes.{name}.{side}: found {list(named)}, wanted experiments of screen"
                    f" {one.screen!r}: {known}"
                )
        if getattr(knobs, "label", "") == "group" and one.groups is None:
            raise UserError(f"probes.{name}.groups: missing key, wanted by label 'group'")


def _check_cycles(config: WorkflowConfig) -> None:
    """Refuse encoders that need themselves: as a judge of what they learn, or as a start."""

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            cycle = " -> ".join((*path[path.index(name) :], name))
            raise UserError(f"encoders.{name}: a cycle, {cycle}; wanted a judge trained before")
        encoder = config.encoders[name]
        before = [one for one in (encoder.of, encoder.initialize_from) if one]
        if encoder.manifest:
            before += config.manifests[encoder.manifest].judges
        for one in before:
            visit(one, (*path, name))

    for name in config.encoders:
        visit(name, ())
