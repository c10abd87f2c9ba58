"""The configuration: checked before any job, one line a mistake, in step with its models."""

import copy
from pathlib import Path

import polars as pl
import pytest
import yaml
from pydantic_core import PydanticUndefined

from phenopipe.config import load_config
from phenopipe.entries import Benchmark, Encoder, Manifest, Probe, Screen
from phenopipe.errors import UserError
from phenopipe.steps import STEPS
from phenopipe.wiring import TARGETS, Wiring

ROOT = Path(__file__).parents[1]
DEMO = yaml.safe_load((ROOT / "workflow_config.yaml").read_text())

# Where the demo departs from a default, which is the paper's or the public reference's.
DEPARTURES = {
    "align.fit.center_on": "wells",
    "align.fit.n_components": 32,
    "align.fit.method": "pca",
    "align.moments.holdout": 0.33,
    "undersample.wells.min_wells": 16,
    "pretrain.mae.crop": 32,
    "pretrain.mae.patch": 4,
    "pretrain.mae.dim": 64,
    "pretrain.mae.depth": 4,
    "pretrain.mae.layer_scale": 0.1,
    "pretrain.mae.decoder_dim": 48,
    "pretrain.mae.decoder_depth": 1,
    "pretrain.mae.decoder_heads": 4,
    "pretrain.mae.updates": 6000,
    "pretrain.mae.batch": 8,
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
        (
            "consistency",
            {"pvalues": {"levels": []}},
            "consistency.pvalues.levels: Tuple should",
        ),
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


def test_the_deciding_probe_serves_trimmed_encoders_that_name_none():
    own = {"mae-trimmed": {"kind": "trimmed", "of": "mae"}}
    assert load_config(changed(encoders=own)).trim_by == "anax"
    told = refused({**changed(encoders=own), "trim_by": "dose"})
    assert "encoders.mae-trimmed.task: found 'dose', wanted one of probes: ['anax']" in told


def test_a_mistake_in_one_experiment_is_told():
    config = copy.deepcopy(DEMO)
    first = next(iter(config["screens"]["simulated"]["experiments"]))
    config["screens"]["simulated"]["experiments"][first]["plates"] = "three"
    assert f"screens.simulated.experiments.{first}.plates" in refused(config)


def test_a_later_experiment_is_known_to_apply_alone():
    config = copy.deepcopy(DEMO)
    config["screens"]["simulated"]["apply"] = {"late-1": {"layout": "A", "plates": 2}}
    loaded = load_config(config)
    wiring = Wiring(loaded, ROOT)
    applied = wiring.targets("apply")
    assert applied and all("/late-1/" in path for path in applied)
    assert len(applied) == len({n["encoder"] for n in wiring.runs["aligned"]})
    for stage in ("screen", "qc", "embed", "align", "consistency", "benchmark"):
        assert not [path for path in wiring.targets(stage) if "late-1" in path]
    knobs = loaded.knobs("screen", "simulate", screen="simulated", experiment="late-1")
    assert knobs.plates == 2
    config["screens"]["simulated"]["apply"]["late-1"]["plates"] = "three"
    assert "screens.simulated.apply.late-1.plates" in refused(config)
    config["screens"]["simulated"]["apply"] = {"huvec-1": {}}
    assert "'huvec-1' is among the screen's experiments too" in refused(config)


def test_nothing_but_the_target_fetch_brings_files():
    config = copy.deepcopy(DEMO)
    config["screens"]["public"] = {
        "source": "rxrx1",
        "path": "rxrx1",
        "experiments": {"HUVEC-01": {}, "HUVEC-02": {}},
        "fetch": {
            "home": "https://example.org",
            "files": ["{experiment}/*"],
            "checksums": "c.csv",
        },
    }
    loaded = load_config(config)
    wiring = Wiring(loaded, ROOT)
    assert wiring.targets("fetch") == ["results/screen/public/fetched.parquet"]
    for stage in set(TARGETS) - {"fetch"}:
        assert not [path for path in wiring.targets(stage) if "fetched" in path]
    knobs = loaded.knobs("screen", "fetch", screen="public")
    assert knobs.experiments == ("HUVEC-01", "HUVEC-02") and knobs.folder == "rxrx1"
    config["screens"]["public"]["fetch"]["max_gb"] = -1
    assert "screens.public.fetch.max_gb" in refused(config)


def test_a_cycle_is_named():
    told = refused(
        changed(
            manifests={"m": {"screens": ["simulated"], "judges": ["own"]}},
            encoders={"own": {"kind": "mae", "manifest": "m"}},
        )
    )
    assert "own -> own" in told


def test_a_cycle_of_starts_is_named():
    encoders = {
        "a": {"kind": "mae", "manifest": "all", "initialize_from": "b"},
        "b": {"kind": "mae", "manifest": "all", "initialize_from": "a"},
    }
    assert "a -> b -> a" in refused(changed(encoders=encoders))
    # Through a manifest that the starting encoder judges.
    encoders = {"own": {"kind": "mae", "manifest": "m", "initialize_from": "trimmed-own"}}
    encoders["trimmed-own"] = {"kind": "mae", "manifest": "n"}
    manifests = {"m": {"screens": ["simulated"]}, "n": {"screens": ["simulated"]}}
    manifests["n"]["judges"] = ["own"]
    assert "a cycle" in refused(changed(encoders=encoders, manifests=manifests))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        (
            {"kind": "mae", "manifest": "all", "initialize_from": "none"},
            "wanted one of encoders",
        ),
        ({"kind": "mae", "manifest": "all", "initialize_from": "pixels"}, "has no weights"),
        ({"kind": "pixels", "initialize_from": "mae"}, "no key of kind 'pixels'"),
        (
            {"kind": "mae", "manifest": "all", "depth": 7, "initialize_from": "mae"},
            "mae has depth 4, wanted 7 as here",
        ),
        (
            {"kind": "ca_mae", "manifest": "all", "initialize_from": "mae"},
            "mae has channel_agnostic False, wanted True",
        ),
        (
            {"kind": "dino", "manifest": "all", "initialize_from": "mae"},
            "mae has crop 32, wanted 64",
        ),
    ],
)
def test_a_start_that_cannot_fit_is_refused(entry, told):
    config = changed(encoders={**DEMO["encoders"], "warm": entry})
    message = refused(config)
    assert message.startswith("encoders.warm.initialize_from: ") and told in message


def test_a_warm_start_waits_for_the_folder_of_its_encoder():
    warm = {"kind": "mae", "manifest": "all", "initialize_from": "mae"}
    config = load_config(changed(encoders={**DEMO["encoders"], "warm": warm}))
    wiring = Wiring(config, ROOT)
    for file in ("model.safetensors", "config.json"):
        assert wiring.start(file, encoder="warm") == [f"results/encoders/mae/{file}"]
        assert wiring.start(file, encoder="mae") == []


def test_a_preset_of_an_entry_goes_before_a_section_and_its_own_keys_before_it():
    own = {"kind": "mae", "manifest": "all", "preset": "L/8", "heads": 8}
    config = load_config(changed(encoders={**DEMO["encoders"], "own": own}))
    knobs = config.knobs("pretrain", "mae", encoder="own")
    assert (knobs.dim, knobs.heads, knobs.lr) == (1024, 8, 3e-5)
    # What the preset does not say comes from the section, as for any encoder.
    assert knobs.updates == DEMO["pretrain"]["mae"]["updates"]
    wrong = {"kind": "mae", "manifest": "all", "preset": "CA-S/16"}
    told = refused(changed(encoders={**DEMO["encoders"], "own": wrong}))
    assert told.startswith("encoders.own.preset: ") and "wanted kind ca_mae" in told


def test_the_papers_two_trainings_by_a_teacher_are_those_of_its_appendix():
    config = load_config(yaml.safe_load((ROOT / "configs" / "paper.yaml").read_text()))
    for name, patch, manifest in (("dino_l16", 16, "rxrx3"), ("dino_l8", 8, "rpi93m")):
        knobs = config.knobs("pretrain", "dino", encoder=name)
        assert (knobs.patch, knobs.lr, knobs.prototypes) == (patch, 1e-5, 65_536)
        assert config.encoders[name].manifest == manifest
        assert name in config.benchmarks["genome"].encoders
    start = Wiring(config, ROOT).start("config.json", encoder="dino_l8")
    assert start == ["results/encoders/mae_l8_rpi93m/config.json"]


def test_paper_chain_is_wired_from_all_images_to_the_report():
    config = load_config(yaml.safe_load((ROOT / "configs" / "paper.yaml").read_text()))
    wiring = Wiring(config, ROOT)
    judges = {names["encoder"] for names in wiring.of_judges("phenoprints16m")}
    assert judges == {"mae_l8_rpi93m", "wsl"}
    # Table 5, and section 3.2 for the first model.
    table = {
        "mae_l8_rpi93m": (40, 16384, 3e-5, 0.3),
        "mae_l8": (500, 16384, 3e-5, 0.3),
        "mae_g8": (500, 8192, 3e-5, 0.6),
        "ca_mae_s16": (100, 2048, 1e-4, 0.1),
    }
    for name, expected in table.items():
        knobs = config.knobs("pretrain", "mae", encoder=name)
        assert (knobs.epochs, knobs.batch, knobs.lr, knobs.drop_path) == expected, name
        assert (knobs.mask_ratio, knobs.betas, knobs.weight_decay) == (0.75, (0.9, 0.95), 0.05)
        assert (knobs.crop, knobs.warmup, knobs.flips, knobs.fourier_weight) == (
            256,
            0.1,
            True,
            0.01,
        )
        assert f"results/pretrain/{name}/history.parquet" in wiring.targets("pretrain")
    for stage in ("screen", "qc", "embed", "align", "probe", "benchmark"):
        assert wiring.targets(stage)


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


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["e1", "e2", " e1"], "row 3: experiment 'e1' again, wanted it once"),
        (["e1", '" "'], "row 2: no experiment, wanted its name"),
        (["e1", '""'], "row 2: no experiment, wanted its name"),
    ],
)
def test_a_sheet_names_every_experiment_once(tmp_path, rows, told):
    lines = ["experiment,layout", *(f"{row}, A " for row in rows)]
    sheet = tmp_path / "sheet.csv"
    lab = {"source": "simulated", "experiments": str(sheet)}
    sheet.write_text("\n".join(lines))
    assert refused({"screens": {"lab": lab}}) == f"{sheet}, {told}"
    last = tmp_path / "last.csv"
    last.write_text("\n".join([lines[0], lines[-1].replace(rows[-1], " e3 ")]))
    config = load_config({"screens": {"lab": {**lab, "experiments": str(last)}}})
    assert config.experiments("lab") == {"e3": {"layout": "A"}}


def test_a_screen_goes_on_without_an_experiment_and_the_page_says_so(tmp_path):
    (tmp_path / "sheet.csv").write_text("experiment\nfirst\nsecond\n")
    lab = {"source": "simulated", "experiments": "sheet.csv", "without": ["second"]}
    raw = {"data": str(tmp_path), "screens": {"lab": lab}}
    config = load_config(raw)
    assert list(config.experiments("lab")) == ["first"]
    assert config.knobs("report", "page").left_out == ("lab/second",)
    with pytest.raises(UserError, match=r"screens.lab.without: no experiments \['third'\]"):
        load_config({**raw, "screens": {"lab": {**lab, "without": ["third"]}}})


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


def test_probes_of_sites_want_sites_to_be_kept():
    raw = yaml.safe_load((ROOT / "tests" / "small.yaml").read_text())
    load_config(raw)
    del raw["embed"]
    with pytest.raises(
        UserError, match=r"probes\.sites\.level: sites, wanted embed\.wells\.sites"
    ):
        load_config(raw)
