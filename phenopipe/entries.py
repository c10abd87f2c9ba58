"""What a configuration can name: screens, encoders, manifests, probes, benchmarks.

Part of the roof. Every entry may set the knobs of the step that serves it beside its own
keys; ``phenopipe/config.py`` checks those against the step's knobs class.
"""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from phenopipe.errors import UserError
from phenopipe.formats.tables import read_any
from phenopipe.knobs import Knobs, Unique, once
from phenopipe.screen.presets import PRESETS, Source

Settings = dict[str, Any]
Names = dict[str, str]

# How names are spelled, which become folders, wildcards of rules and words of commands.
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
TESTS = ("recall", "replicates", "magnitude", "compounds", "arms", "classes")

STEP_OF_SOURCE = {
    "simulated": "simulate",
    "profiles": "profiles",
    **dict.fromkeys(get_args(Source), "images"),
}
STEP_OF_KIND = {
    "profiles": ("embed", "profiles"),
    "timm": ("embed", "prepare"),
    "imported": ("embed", "prepare"),
    "pixels": ("embed", "prepare"),
    "random": ("embed", "random"),
    "mae": ("pretrain", "mae"),
    "ca_mae": ("pretrain", "mae"),
    "dino": ("pretrain", "dino"),
    "classifier": ("pretrain", "classifier"),
    "trimmed": ("probe", "trim"),
}
# Keys beside knobs that an encoder of a kind may have.
KEYS_OF_KIND = {
    **dict.fromkeys(("timm", "imported"), ("weights",)),
    **dict.fromkeys(("mae", "ca_mae", "dino"), ("manifest", "initialize_from")),
    "classifier": ("screen", "initialize_from"),
    "trimmed": ("of", "task"),
}
# Encoders that learned nothing from microscopy images.
BASELINES = ("timm", "pixels", "profiles", "random")


class Entry(BaseModel):
    """Something that the configuration names; further keys are knobs of its step."""

    model_config = ConfigDict(extra="allow", frozen=True, use_attribute_docstrings=True)

    @property
    def settings(self) -> Settings:
        """Keys that are knobs."""
        return dict(self.model_extra or {})


class Strict(BaseModel):
    """An entry without knobs of its own: unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Screen(Entry):
    """One assay; further keys are knobs of ``screen.<source>``."""

    source: Literal["simulated", "profiles"] | Source
    """Where wells and pixels come from: docs/screens.md."""
    path: str | None = None
    """Folder of a screen in a public layout; its paths start from there."""
    experiments: dict[str, Settings] | str
    """Experiments, each with knobs of its own; or a sheet with a column ``experiment``."""
    apply: dict[str, Settings] | str = Field(default_factory=dict)
    """Experiments that came later, in the same form: ``snakemake apply`` takes them through
    finished encoders and transforms; nothing is trained, fitted or tested on them."""
    without: Unique[str] = ()
    """Experiments to go on without, such as one whose images cannot be read; the report
    names them."""
    tables: Unique[str] = ()
    """The user's tables (sources images, profiles and ome_zarr); an experiment may name its
    own. Other public layouts have theirs."""
    genes: str | None = None
    """Table of genes with chromosome arm and expression; arm correction needs it."""
    interactions: str | None = None
    """Table of compounds and their target genes."""
    annotate: Settings = Field(default_factory=dict)
    """Knobs of ``screen.annotate``."""
    fetch: Settings = Field(default_factory=dict)
    """Knobs of ``screen.fetch``: where a public screen is published, and what of it the target
    ``fetch`` brings; ``checksums`` beside them names a table of path and sha256."""

    def folder(self, data: str) -> str:
        """Where the files of a screen in a public layout lie."""
        return str(Path(data) / (self.path or "."))

    def layout(self, data: str) -> Settings:
        """What a screen in a public layout tells the step that reads it."""
        if self.source not in PRESETS:
            return {}
        return {"source": self.source, "root": self.folder(data)}

    def brought(self, data: str) -> Settings:
        """What ``fetch`` says of a screen, and where its files go."""
        own = {key: value for key, value in self.fetch.items() if key != "checksums"}
        return {"folder": self.folder(data), **own}

    def knows(self, table: str) -> bool:
        """Whether there is a table of its ``genes`` or ``interactions``."""
        return self.source == "simulated" or getattr(self, table) is not None

    @property
    def channels(self) -> list[str]:
        """Channels that are stated, or those of the public layout."""
        settings = {**PRESETS.get(self.source, {}), **self.settings}
        return list(settings.get("channels") or ())


class Encoder(Entry):
    """Crop -> embedding; further keys are knobs of the step that makes its folder."""

    kind: Literal[
        "timm",
        "imported",
        "pixels",
        "profiles",
        "random",
        "mae",
        "ca_mae",
        "dino",
        "classifier",
        "trimmed",
    ]
    """How the encoder comes about."""
    manifest: str | None = None
    """Manifest that it learns from (mae, ca_mae, dino)."""
    screen: str | None = None
    """Screen whose labels it learns (classifier)."""
    weights: str | None = None
    """File of weights (timm), or folder of an encoder (imported)."""
    initialize_from: str | None = None
    """Encoder of the same architecture whose weights training starts from (mae, ca_mae, dino,
    classifier); a dino may start from a mae."""
    of: str | None = None
    """Encoder that is cut (trimmed)."""
    task: str | None = None
    """Probe that says where to cut (trimmed); the configuration's ``trim_by`` if left out."""


class Manifest(Strict):
    """A training set."""

    screens: dict[str, tuple[str, ...]] | tuple[str, ...]
    """Screens that it draws from; or, to freeze it, screens with their experiments."""
    judges: Unique[str] = ()
    """Encoders whose p-values vote; without judges nothing is curated away."""
    images: int | None = Field(default=None, ge=1)
    """Images that it is expected to hold, for plans of trainings (pretrain.plan); the rest
    of the workflow counts them itself."""
    undersample: Settings = Field(default_factory=dict)
    """Knobs of ``undersample.wells``."""
    phenoprints: Settings = Field(default_factory=dict)
    """Knobs of ``phenoprints.select``."""

    @field_validator("screens")
    @classmethod
    def _once(
        cls, screens: dict[str, tuple[str, ...]] | tuple[str, ...]
    ) -> dict[str, tuple[str, ...]] | tuple[str, ...]:
        for names in screens.values() if isinstance(screens, dict) else [screens]:
            once(names)
        return screens


class Probe(Entry):
    """A linear probe; further keys are knobs of ``probe.blocks``."""

    screen: str
    """Screen whose wells are classified."""
    encoders: Unique[str]
    """Encoders whose blocks are compared."""
    groups: str | None = None
    """Table of gene groups (columns group, gene), where the label is the group."""


class Benchmark(Strict):
    """Tests of the map of one screen; a test runs where its key is given."""

    screen: str
    """Screen whose aligned wells are tested."""
    encoders: Unique[str]
    """Encoders that are compared."""
    pairs: dict[str, str] = Field(default_factory=dict)
    """Known relationships: name of the source -> table of pairs or of groups."""
    aggregate: Settings = Field(default_factory=dict)
    """Knobs of ``benchmark.aggregate``."""
    recall: Settings | None = None
    """Knobs of ``benchmark.recall``."""
    replicates: Settings | None = None
    """Knobs of ``benchmark.replicates``."""
    magnitude: Settings | None = None
    """Knobs of ``benchmark.magnitude``."""
    compounds: Settings | None = None
    """Knobs of ``benchmark.compounds``."""
    arms: Settings | None = None
    """Knobs of ``benchmark.arms``; the screen needs a table of genes."""
    classes: Settings | None = None
    """Knobs of ``benchmark.classes``."""
    labels: str | None = None
    """Table of compounds and their classes, such as mechanisms of action."""

    @model_validator(mode="after")
    def _supplied(self) -> "Benchmark":
        if self.recall is not None and not self.pairs:
            raise ValueError("recall without pairs, wanted a table of known relationships")
        if self.classes is not None and self.labels is None:
            raise ValueError("classes without labels, wanted a table of compounds and classes")
        return self

    @property
    def tests(self) -> list[str]:
        """Tests that run."""
        return [test for test in TESTS if getattr(self, test) is not None]


def told_apart(encoders: Mapping[str, Encoder], given: Mapping[str, Any]) -> Settings:
    """Tell which encoders are baselines and which are random, unless that is given."""
    kinds = {
        name: encoders[one.of].kind if one.of and one.of in encoders else one.kind
        for name, one in encoders.items()
    }
    found = {
        "baselines": [name for name, kind in kinds.items() if kind in BASELINES],
        "random": [name for name, kind in kinds.items() if kind == "random"],
    }
    return {key: value for key, value in found.items() if key not in given}


def refuse_unknown(kind: type[Knobs], settings: Settings, where: str) -> None:
    """Refuse settings that a step does not have."""
    for key, value in settings.items():
        if key not in kind.model_fields:
            known = ", ".join(kind.model_fields)
            wanted = f"one of {known}" if known else "none"
            raise UserError(f"{where}.{key}: unknown key (found {value!r}), wanted {wanted}")


def shared_settings(kind: type[Knobs], settings: Settings) -> Settings:
    """Keys of a simulated screen that its annotation must know too."""
    return {key: value for key, value in settings.items() if key in kind.model_fields}


def rows_left(name: str, screen: Screen, data: str) -> Mapping[str, Settings]:
    """Return the experiments of a screen but those that it goes on without."""
    rows = read_rows(screen.experiments, data)
    if not screen.without:
        return rows
    if unknown := set(screen.without) - set(rows):
        raise UserError(f"screens.{name}.without: no experiments {sorted(unknown)}")
    return {key: row for key, row in rows.items() if key not in screen.without}


def read_rows(given: Mapping[str, Settings] | str, data: str) -> Mapping[str, Settings]:
    """Return experiments and what each sets for itself, from a sheet if it is one."""
    return _read_sheet(Path(data) / given) if isinstance(given, str) else given


@cache
def _read_sheet(path: Path) -> Mapping[str, Settings]:
    # Once: every job of an experiment asks for its row.
    sheet = read_any(path)
    if "experiment" not in sheet.columns:
        raise UserError(f"{path}: no column 'experiment', wanted in a sheet of experiments")
    words = sheet.with_columns(pl.col("experiment").cast(pl.String))
    stripped = words.with_columns(pl.col(pl.String).str.strip_chars())
    rows: dict[str, Settings] = {}
    for at, row in enumerate(stripped.iter_rows(named=True), 1):
        name = row.pop("experiment")
        if not name:
            raise UserError(f"{path}, row {at}: no experiment, wanted its name")
        if name in rows:
            raise UserError(f"{path}, row {at}: experiment {name!r} again, wanted it once")
        rows[name] = {key: value for key, value in row.items() if value not in (None, "")}
    return rows
