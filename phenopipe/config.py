"""workflow_config.yaml, checked before any job starts: entries, and one section a stage.

This is the roof: it knows every stage's knobs, and only ``rules/common.smk`` imports it.

One rule holds everywhere. A section (``consistency: pvalues: ...``) sets a step's knobs
for the whole workflow; an entry (a screen, encoder, manifest, probe or benchmark) may set
the same knobs for itself. ``seed`` at the top reaches every step that draws.
"""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phenopipe.entries import (
    STEP_OF_KIND,
    STEP_OF_SOURCE,
    Benchmark,
    Encoder,
    Manifest,
    Names,
    Probe,
    Screen,
    Settings,
    read_rows,
    refuse_unknown,
    rows_left,
    shared_settings,
    told_apart,
)
from phenopipe.errors import UserError
from phenopipe.knobs import Knobs, describe
from phenopipe.screen import config as screen
from phenopipe.steps import STEPS

Export = Literal["h5ad", "zarr", "profiles", "gallery", "maps", "manifests"]
Section = dict[str, Settings]


class WorkflowConfig(BaseModel):
    """The whole of workflow_config.yaml; see :func:`load_config` for a checked one."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    seed: int = 0
    """Seed of every random draw; a step's own ``seed`` goes before it."""
    data: str = "."
    """Folder that the paths of the user's tables start from."""
    drop: tuple[Literal["images", "embeddings"], ...] = ()
    """What is deleted once nothing needs it: images.zarr, stores of embeddings."""
    exports: tuple[Export, ...] = ("h5ad", "profiles", "maps", "manifests")
    """What the target ``export`` makes: aligned wells as AnnData (h5ad, zarr), as wide tables
    (profiles) or as a project of the Cell Painting Gallery, maps as AnnData, flat manifests."""
    screens: dict[str, Screen]
    """What was screened."""
    encoders: dict[str, Encoder] = Field(default_factory=dict)
    """What turns images into embeddings."""
    manifests: dict[str, Manifest] = Field(default_factory=dict)
    """Training sets."""
    probes: dict[str, Probe] = Field(default_factory=dict)
    """Tasks that choose the best block."""
    trim_by: str = "anax"
    """Probe that says where trimmed encoders end, unless they name a task of their own."""
    benchmarks: dict[str, Benchmark] = Field(default_factory=dict)
    """Tests of the map."""
    screen: Section = Field(default_factory=dict)
    """Knobs of the stage, step by step; likewise below."""
    qc: Section = Field(default_factory=dict)
    undersample: Section = Field(default_factory=dict)
    embed: Section = Field(default_factory=dict)
    align: Section = Field(default_factory=dict)
    consistency: Section = Field(default_factory=dict)
    phenoprints: Section = Field(default_factory=dict)
    pretrain: Section = Field(default_factory=dict)
    probe: Section = Field(default_factory=dict)
    benchmark: Section = Field(default_factory=dict)
    report: Section = Field(default_factory=dict)
    export: Section = Field(default_factory=dict)

    def knobs(self, stage: str, step: str, **names: str) -> Knobs:
        """Return the knobs of one step, for the entry that the rule's wildcards name.

        Raises
        ------
        UserError
            If a key is unknown or a value does not fit, with its key path.
        """
        kind = STEPS[stage][step]
        section = getattr(self, stage).get(step, {})
        where, own = self._own_settings(stage, step, names)
        refuse_unknown(kind, section, f"{stage}.{step}")
        refuse_unknown(kind, own, where)
        seed = {"seed": self.seed} if "seed" in kind.model_fields else {}
        try:
            return kind.merged(seed, section, own)
        except ValidationError as error:
            raise UserError(describe(error, where or f"{stage}.{step}")) from None

    def _own_settings(self, stage: str, step: str, names: Names) -> tuple[str, Settings]:
        """Find what the entry sets for itself, and its key path."""
        match stage, step:
            case "screen", "annotate":
                one = self.screens[names["screen"]]
                simulated = {"source": "simulated"} if one.source == "simulated" else {}
                return f"screens.{names['screen']}.annotate", {
                    **shared_settings(STEPS[stage][step], one.settings),
                    **simulated,
                    **one.annotate,
                }
            case "screen", "fetch":
                every = list(self.experiments(names["screen"]))
                told = self.screens[names["screen"]].brought(self.data)
                return f"screens.{names['screen']}.fetch", {"experiments": every, **told}
            case "screen", _:
                one, experiment = self.screens[names["screen"]], names["experiment"]
                own = self.experiments(names["screen"])
                part = "experiments" if experiment in own else "apply"
                row = dict({**own, **self.applied(names["screen"])}[experiment])
                row.pop("tables", None)
                where = f"screens.{names['screen']}.{part}.{experiment}"
                return where, {**one.layout(self.data), **one.settings, **row}
            case ("embed", "prepare" | "random") | ("pretrain", _) | ("probe", "trim"):
                return self._encoder_settings(names["encoder"])
            case "undersample", "wells":
                where = f"manifests.{names['manifest']}.undersample"
                return where, self.manifests[names["manifest"]].undersample
            case "phenoprints", "select":
                where = f"manifests.{names['manifest']}.phenoprints"
                return where, self.manifests[names["manifest"]].phenoprints
            case "probe", "blocks":
                return f"probes.{names['task']}", self.probes[names["task"]].settings
            case "benchmark", _:
                one_test = self.benchmarks[names["benchmark"]]
                own = dict(getattr(one_test, step) or {})
                if step == "recall":
                    own["sources"] = list(one_test.pairs)
                return f"benchmarks.{names['benchmark']}.{step}", own
            case "report", "page":
                gone = [f"{s}/{e}" for s, one in self.screens.items() for e in one.without]
                return "", {"left_out": gone}
            case "report", "tables":
                return "", told_apart(self.encoders, self.report.get("tables", {}))
        return "", {}

    def _encoder_settings(self, name: str) -> tuple[str, Settings]:
        one = self.encoders[name]
        fields = STEPS[STEP_OF_KIND[one.kind][0]][STEP_OF_KIND[one.kind][1]].model_fields
        own = one.settings
        if "kind" in fields:
            own["kind"] = one.kind
        if "channel_agnostic" in fields:
            own["channel_agnostic"] = one.kind == "ca_mae"
        if "channels" in fields and one.kind != "imported":
            own.setdefault("channels", self._channels(name))
        if "checkpoints" in fields:
            own.setdefault("checkpoints", f"results/pretrain/{name}/checkpoints")
            own.setdefault("logs", f"logs/training/{name}")
        return f"encoders.{name}", own

    def _channels(self, encoder: str) -> list[str]:
        """Channels of the first screen on which an encoder is used."""
        uses = [one.screen for one in self.probes.values() if encoder in one.encoders]
        uses += [one.screen for one in self.benchmarks.values() if encoder in one.encoders]
        for manifest in self.manifests.values():
            uses += list(manifest.screens) if encoder in manifest.judges else []
        for one in (self.screens[name] for name in uses if name in self.screens):
            if one.source == "simulated" or one.channels:
                return one.channels or list(screen.CHANNELS)
        return []

    def experiments(self, name: str) -> Mapping[str, Settings]:
        """Experiments of a screen and what each sets for itself."""
        return rows_left(name, self.screens[name], self.data)

    def applied(self, name: str) -> Mapping[str, Settings]:
        """Later experiments of a screen, which only the target ``apply`` makes."""
        return read_rows(self.screens[name].apply, self.data)


def load_config(raw: Mapping[str, Any]) -> WorkflowConfig:
    """Check the mapping that Snakemake read: keys, values, names, cycles.

    Raises
    ------
    UserError
        In one line: key path, what was found, what is wanted.
    """
    try:
        config = WorkflowConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(describe(error)) from None
    for stage, steps in STEPS.items():
        for step in getattr(config, stage):
            if step not in steps:
                raise UserError(f"{stage}.{step}: unknown key, wanted one of {list(steps)}")
    _check_names(config)
    _check_cycles(config)
    _check_knobs(config)
    _check_starts(config)
    return config


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


def _check_names(config: WorkflowConfig) -> None:
    for where, section, name in _references(config):
        known = getattr(config, section)
        if name not in known:
            raise UserError(f"{where}: found {name!r}, wanted one of {section}: {list(known)}")
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
    for name, one_test in config.benchmarks.items():
        judged = (one_test.recall or {}).get("manifest")
        if judged is not None and judged not in config.manifests:
            raise UserError(
                f"benchmarks.{name}.recall.manifest: found {judged!r}, wanted one of"
                f" manifests: {list(config.manifests)}"
            )
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


def _check_knobs(config: WorkflowConfig) -> None:
    """Build every step's knobs once, so that a mistake shows before any job starts."""
    for stage, steps in STEPS.items():
        for step in steps:
            for names in _entries(config, stage, step):
                config.knobs(stage, step, **names)
    for name in config.probes:
        wants_sites = (
            getattr(config.knobs("probe", "blocks", task=name), "level", "") == "sites"
        )
        if wants_sites and not getattr(config.knobs("embed", "wells"), "sites", None):
            raise UserError(f"probes.{name}.level: sites, wanted embed.wells.sites to be set")


def _entries(config: WorkflowConfig, stage: str, step: str) -> list[Names]:
    """List the entries for which a step runs, as the wildcards of its rule."""
    match stage, step:
        case "screen", "annotate":
            return [{"screen": name} for name in config.screens]
        case "screen", "fetch":
            return [{"screen": name} for name, one in config.screens.items() if one.fetch]
        case "screen", _:
            return [
                {"screen": name, "experiment": experiment}
                for name, one in config.screens.items()
                if STEP_OF_SOURCE[one.source] == step
                for experiment in (*config.experiments(name), *config.applied(name))
            ]
        case ("embed", "prepare" | "random") | ("pretrain", _) | ("probe", "trim"):
            return [
                {"encoder": name}
                for name, one in config.encoders.items()
                if STEP_OF_KIND.get(one.kind) == (stage, step)
            ]
        case ("undersample", "wells") | ("phenoprints", "select"):
            return [{"manifest": name} for name in config.manifests]
        case "probe", "blocks":
            return [{"task": name} for name in config.probes]
        case "benchmark", _:
            return [{"benchmark": name} for name in config.benchmarks]
    return [{}]
