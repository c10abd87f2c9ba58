"""What the entries of a configuration say of each other, refused where it cannot hold.

Part of the roof, beside ``phenopipe/config.py``, which calls it before any job starts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from phenopipe.entries import NAME, STEP_OF_KIND
from phenopipe.errors import UserError

if TYPE_CHECKING:
    from phenopipe.config import WorkflowConfig

GROUPS = ("screens", "encoders", "manifests", "probes", "benchmarks")


def check_names(config: WorkflowConfig) -> None:
    """Refuse names that no folder can have, that nothing has, or that go in a circle."""
    _check_spelling(config)
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


def _references(config: WorkflowConfig) -> Iterator[tuple[str, str, str]]:
    """List every name that an entry gives to another: key path, section, name."""
    for name, encoder in config.encoders.items():
        needs = {
            "mae": ("manifest",),
            "ca_mae": ("manifest",),
            "dino": ("manifest",),
            "classifier": ("screen",),
            "trimmed": ("of", "task"),
        }
        for key in needs.get(encoder.kind, ()):
            section = {"manifest": "manifests", "screen": "screens", "of": "encoders"}
            value = getattr(encoder, key) or (config.trim_by if key == "task" else "nothing")
            yield f"encoders.{name}.{key}", section.get(key, "probes"), value
        if encoder.initialize_from:
            yield f"encoders.{name}.initialize_from", "encoders", encoder.initialize_from
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
        task = encoder.task or config.trim_by
        if encoder.kind == "trimmed" and encoder.of not in config.probes[task].encoders:
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
        if STEP_OF_KIND.get(encoder.kind, ("", ""))[0] != "pretrain":
            raise UserError(
                f"{where}: kind {encoder.kind!r} is not trained, wanted no such key"
            )
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
