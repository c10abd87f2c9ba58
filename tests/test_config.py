"""The configuration: checked before any job, one line a mistake, in step with its models."""

import copy
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic_core import PydanticUndefined

from phenopipe.config import STEPS, load_config
from phenopipe.entries import Benchmark, Encoder, Manifest, Probe, Screen
from phenopipe.errors import UserError
from phenopipe.wiring import Wiring

ROOT = Path(__file__).parents[1]
DEMO = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())

# Where the demo departs from a default, which is the paper's or the public reference's.
DEPARTURES = {
    "align.fit.center_on": "wells",
    "align.fit.n_components": 32,
    "undersample.wells.min_wells": 12,
    "pretrain.mae.crop": 32,
    "pretrain.mae.patch": 4,
    "pretrain.mae.layer_scale": 0.1,
    "pretrain.mae.decoder_depth": 1,
    "pretrain.mae.updates": 1000,
    "pretrain.classifier.updates": 400,
}


def changed(**sections):
    """The demo's configuration with sections replaced or extended."""
    config = copy.deepcopy(DEMO)
    for name, value in sections.items():
        config[name] = {**config.get(name, {}), **value} if isinstance(value, dict) else value
    return config


def refused(config):
    """What the user is told, which must be one line."""
    with pytest.raises(UserError) as error:
        load_config(config)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_demo_states_defaults_or_known_departures():
    for stage, steps in STEPS.items():
        for step, kind in steps.items():
            for key, value in DEMO.get(stage, {}).get(step, {}).items():
                path = f"{stage}.{step}.{key}"
                default = kind.model_fields[key].default
                assert value == DEPARTURES.get(path, default), path


def test_every_shipped_configuration_is_valid():
    for path in [ROOT / "workflow_config.yaml", *(ROOT / "configs").glob("*.yaml")]:
        load_config(yaml.safe_load(path.read_text()))


@pytest.mark.parametrize("entry", [Screen, Encoder, Manifest, Probe, Benchmark])
def test_every_key_of_an_entry_is_documented(entry):
    for name, field in entry.model_fields.items():
        assert field.description, name


def test_defaults_are_valid_values_of_their_own_fields():
    for steps in STEPS.values():
        for kind in steps.values():
            stated = {
                name: field.default
                for name, field in kind.model_fields.items()
                if field.default is not PydanticUndefined
            }
            required = [n for n, field in kind.model_fields.items() if field.is_required()]
            if not required:
                try:
                    kind.model_validate(stated)
                except ValueError as error:
                    # Two knobs of one class may exclude each other's defaults on purpose.
                    assert "Value error" in str(error)


@pytest.mark.parametrize(
    ("section", "value", "told"),
    [
        ("consistency", {"pvalues": {"n_nul": 5}}, "consistency.pvalues.n_nul: unknown key"),
        ("consistency", {"pvalues": {"n_null": "many"}}, "consistency.pvalues.n_null"),
        ("consistency", {"pvalue": {}}, "consistency.pvalue: unknown key"),
        ("screens", {"x": {"source": "nowhere", "experiments": {}}}, "screens.x.source"),
        ("encoders", {"x": {"kind": "mae"}}, "encoders.x.manifest: found 'nothing'"),
        ("encoders", {"x": {"kind": "mae", "manifest": "all", "dimm": 3}}, "encoders.x.dimm"),
        ("encoders", {"x": {"kind": "timm", "crop": -1}}, "encoders.x.crop"),
        ("encoders", {"x": {"kind": "trimmed", "of": "x", "task": "none"}}, "encoders.x.task"),
        ("manifests", {"m": {"screens": ["nowhere"]}}, "manifests.m.screens: found 'nowhere'"),
        ("manifests", {"m": {"screens": {"simulated": ["x"]}}}, "manifests.m.screens.sim"),
        ("manifests", {"m": {"screens": ["simulated"], "judge": []}}, "manifests.m.judge"),
        ("benchmarks", {"b": {"screen": "labelled", "encoders": ["x"]}}, "benchmarks.b.enc"),
        ("seed", "one", "seed: Input should be a valid integer"),
    ],
)
def test_a_mistake_names_key_value_and_what_is_wanted(section, value, told):
    assert told in refused(changed(**{section: value}))


def test_a_mistake_in_one_experiment_is_told():
    config = copy.deepcopy(DEMO)
    first = next(iter(config["screens"]["simulated"]["experiments"]))
    config["screens"]["simulated"]["experiments"][first]["plates"] = "three"
    assert f"screens.simulated.experiments.{first}.plates" in refused(config)


def test_a_cycle_is_named():
    told = refused(
        changed(
            manifests={"m": {"screens": ["simulated"], "judges": ["own"]}},
            encoders={"own": {"kind": "mae", "manifest": "m"}},
        )
    )
    assert "own -> own" in told


def test_training_and_testing_on_one_experiment_is_refused():
    probe = {**DEMO["probes"]["anax"], "train": ["huvec-1"], "test": ["huvec-1"]}
    assert "huvec-1" in refused(changed(probes={"anax": probe}))


def test_an_entry_goes_before_a_section_and_the_seed_reaches_all():
    encoders = {**DEMO["encoders"], "own": {"kind": "mae", "manifest": "all", "batch": 7}}
    config = load_config(
        changed(seed=5, encoders=encoders, pretrain={"mae": {"batch": 9, "patch": 16}})
    )
    own = config.knobs("pretrain", "mae", encoder="own")
    assert (own.batch, own.patch, own.seed) == (7, 16, 5)
    assert config.knobs("consistency", "pvalues").seed == 5


def test_a_sheet_serves_as_experiments(tmp_path):
    pl.DataFrame(
        {"experiment": ["e1", "e2"], "layout": ["A", "B"], "plates": [2, None]}
    ).write_csv(tmp_path / "sheet.csv")
    config = load_config(
        {
            "data": str(tmp_path),
            "screens": {"s": {"source": "simulated", "experiments": "sheet.csv"}},
        }
    )
    assert config.knobs("screen", "simulate", screen="s", experiment="e1").plates == 2
    assert config.knobs("screen", "simulate", screen="s", experiment="e2").layout == "B"


def test_wiring_multiplies_names_out():
    wiring = Wiring(load_config(DEMO), ROOT)
    n_experiments = len(DEMO["screens"]["simulated"]["experiments"])
    judges = len(DEMO["manifests"]["phenoprints"]["judges"])
    assert len(wiring.of_judges("phenoprints")) == n_experiments * judges
    frozen = {**DEMO["manifests"]["phenoprints"], "screens": {"simulated": ["huvec-1"]}}
    wiring = Wiring(load_config(changed(manifests={"phenoprints": frozen})), ROOT)
    assert [n["experiment"] for n in wiring.of_manifest("phenoprints")] == ["huvec-1"]


def test_shipped_tables_are_found_beside_the_snakefile():
    wiring = Wiring(load_config(changed(data="/nowhere")), ROOT)
    assert wiring.find("phenopipe/screen/anax.tsv") == str(ROOT / "phenopipe/screen/anax.tsv")
    assert wiring.find("mine.csv") == "/nowhere/mine.csv"
