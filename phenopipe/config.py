"""workflow_config.yaml, checked before any job starts: entries, and one section a stage.

This is the roof: it knows every stage's knobs, and only ``rules/common.smk`` imports it.

One rule holds everywhere. A section (``consistency: pvalues: ...``) sets a step's knobs
for the whole workflow; an entry (a screen, encoder, manifest, probe or benchmark) may set
the same knobs for itself. ``seed`` at the top reaches every step that draws.
"""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from phenopipe.crosschecks import check_names, check_uses
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
from phenopipe.knobs import Knobs, Unique, describe
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
    drop: Unique[Literal["images", "embeddings"]] = ()
    """What is deleted once nothing needs it: images.zarr, stores of embeddings."""
    exports: Unique[Export] = ("h5ad", "profiles", "maps", "manifests")
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
            case (
                ("embed", "prepare" | "profiles" | "random")
                | ("pretrain", _)
                | ("probe", "trim")
            ):
                return self._encoder_settings(names["encoder"])
            case "align", "fit" if "screen" in names:
                # The frozen list is one for all screens; each has its own part of it.
                known = self.experiments(names["screen"])
                frozen = self.align.get(step, {}).get("experiments") or ()
                return "", {"experiments": [one for one in frozen if one in known] or None}
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

    def drawn(self, manifest: str) -> list[tuple[str, str]]:
        """Screens and experiments that a manifest draws from."""
        screens = self.manifests[manifest].screens
        frozen = screens if isinstance(screens, dict) else {}
        return [
            (name, experiment)
            for name in screens
            for experiment in self.experiments(name)
            if not frozen.get(name) or experiment in frozen[name]
        ]


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
    check_names(config)
    _check_knobs(config)
    check_uses(config)
    return config


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
        case ("embed", "prepare" | "profiles" | "random") | ("pretrain", _) | ("probe", "trim"):
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
