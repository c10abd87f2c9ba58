"""Entries that do not fit each other: refused in one line before any job starts."""

import copy

import pytest

from phenopipe.config import load_config
from phenopipe.wiring import Wiring
from tests.test_config import DEMO, ROOT, changed, refused

TWO = {"a": {"experiments": {"e1": {}, "e2": {}}}, "b": {"experiments": {"e2": {}, "e3": {}}}}


def two_screens(**sections):
    """Two simulated screens, which share an experiment's name."""
    screens = {name: {"source": "simulated", **one} for name, one in TWO.items()}
    return {"screens": screens, "encoders": {"x": {"kind": "pixels"}}, **sections}


@pytest.mark.parametrize("name", ["w 1", "a/b", "wü", "..", "-1"])
@pytest.mark.parametrize("group", ["screens", "encoders", "manifests", "probes", "benchmarks"])
def test_a_name_that_no_folder_can_have_is_told_with_its_section(group, name):
    entry = next(iter(DEMO[group].values()))
    message = refused(changed(**{group: {**DEMO[group], name: entry}}))
    assert message.startswith(f"{group}: found the name {name!r}, wanted letters of A-Z")


@pytest.mark.parametrize("key", ["experiments", "apply"])
def test_experiments_are_spelled_like_all_names(key):
    config = copy.deepcopy(DEMO)
    config["screens"]["simulated"].setdefault(key, {})["a b"] = {}
    assert refused(config).startswith(f"screens.simulated.{key}: found the name 'a b'")


def test_a_frozen_transform_takes_from_each_screen_its_own_experiments():
    frozen = {"fit": {"experiments": ["e3", "e1"], "center_on": "wells"}}
    config = load_config(two_screens(align=frozen))
    of = {screen: config.knobs("align", "fit", screen=screen) for screen in TWO}
    assert (of["a"].experiments, of["b"].experiments) == (("e1",), ("e3",))
    wiring = Wiring(config, ROOT)
    assert wiring.of_fit("b") == wiring.of_centers("b") == [{"screen": "b", "experiment": "e3"}]
    # A screen of which the list names none is fitted on all of its own.
    config = load_config(two_screens(align={"fit": {"experiments": ["e1"]}}))
    assert config.knobs("align", "fit", screen="b").experiments is None
    assert len(Wiring(config, ROOT).of_fit("b")) == 2
    told = refused(two_screens(align={"fit": {"experiments": ["e1", "e9"]}}))
    assert told.startswith("align.fit.experiments: ['e9'] are in no screen, wanted some of")


def test_a_manifest_holds_no_two_experiments_of_one_name():
    told = refused(two_screens(manifests={"m": {"screens": ["a", "b"]}}))
    assert told.startswith("manifests.m.screens: 'a' and 'b' both have an experiment 'e2'")
    frozen = {"a": ["e1"], "b": ["e2", "e3"]}
    load_config(two_screens(manifests={"m": {"screens": frozen}}))


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"kind": "profiles", "typo": 3}, "typo: unknown key (found 3), wanted none"),
        ({"kind": "mae", "manifest": "all", "weights": "w"}, "weights: no key of kind 'mae'"),
        ({"kind": "timm", "manifest": "all"}, "manifest: no key of kind 'timm' (found 'all')"),
        (
            {"kind": "random", "of": "mae"},
            "of: no key of kind 'random' (found 'mae'), wanted n",
        ),
        ({"kind": "classifier", "screen": "labelled", "task": "anax"}, "task: no key of kind"),
        ({"kind": "trimmed", "of": "mae", "initialize_from": "mae"}, "initialize_from: no key"),
    ],
)
def test_a_key_of_another_kind_of_encoder_is_refused(entry, told):
    message = refused(changed(encoders={**DEMO["encoders"], "x": entry}))
    assert message.startswith(f"encoders.x.{told}")


@pytest.mark.parametrize("kind", ["profiles", "random"])
def test_what_has_no_blocks_cannot_be_trimmed(kind):
    encoders = {"plain": {"kind": kind}, "cut": {"kind": "trimmed", "of": "plain"}}
    told = refused(changed(encoders={**DEMO["encoders"], **encoders}))
    assert told.startswith(f"encoders.cut.of: 'plain' of kind {kind!r} has no blocks, wanted")


def test_genes_with_a_phenoprint_need_a_manifest_with_judges():
    recall = {"keep": "phenoprint", "manifest": "raw"}
    one = {"screen": "simulated", "encoders": ["mae"], "pairs": {"CORUM": "c.tsv"}}
    raw = {"raw": {"screens": ["simulated"]}}
    config = changed(
        manifests={**DEMO["manifests"], **raw}, benchmarks={"b": {**one, "recall": recall}}
    )
    assert refused(config).startswith("benchmarks.b.recall.manifest: 'raw' has no judges")


LAB = {
    "source": "profiles",
    "experiments": {"e": {}},
    "columns": {"plate": "p", "well": "w", "role": "r", "cell_type": {"constant": "U2OS"}},
    "roles": {"negative_control": ["DMSO"]},
}
ENCODERS = {**DEMO["encoders"], "features": {"kind": "profiles"}}


@pytest.mark.parametrize(
    ("test", "told"),
    [
        ({"recall": {}}, "b: recall without pairs"),
        ({"recall": {"nulls": []}}, "b.recall.nulls: Tuple should have at least 1 item"),
        ({"recall": {"nulls": ["sampled"] * 2}}, "b.recall.nulls: 'sampled' is listed twice"),
        ({"recall": {"thresholds": []}}, "b.recall.thresholds: Tuple should"),
        ({"recall": {"null_seeds": []}}, "b.recall.null_seeds: Tuple should"),
        ({"recall": {"null_seeds": [[-1, 2]]}}, "b.recall.null_seeds.0.0: Input should be gre"),
        (
            {"recall": {"keep": "expressed"}},
            "b.recall.keep: screen 'lab' has no table of genes",
        ),
        ({"arms": {}}, "b.arms: screen 'lab' has no table of genes, wanted screens.lab.genes"),
        ({"aggregate": {"arms_on": "map"}}, "b.aggregate.arms_on: screen 'lab' has no table"),
        ({"compounds": {}}, "b.compounds: screen 'lab' has no table of interactions"),
        ({"encoders": ["pixels"]}, "b.encoders: 'pixels' of kind pixels cannot read screen"),
    ],
)
def test_a_benchmark_that_cannot_run_is_refused(test, told):
    known = {} if told.startswith("b: recall without") else {"pairs": {"CORUM": "c.tsv"}}
    one = {"screen": "lab", "encoders": ["features"], **known, **test}
    config = changed(screens={"lab": LAB}, encoders=ENCODERS, benchmarks={"b": one})
    assert refused(config).startswith(f"benchmarks.{told}")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"train": []}, "train: found [], wanted experiments of screen 'simulated': ['huvec-1"),
        ({"test": ["huvec-3", "zz"]}, "test: found ['huvec-3', 'zz'], wanted experiments"),
        (
            {"groups": None},
            "groups: missing key, wanted by label 'group'",
        ),
    ],
)
def test_a_probe_that_cannot_run_is_refused(change, told):
    probe = {**DEMO["probes"]["anax"], **change}
    assert refused(changed(probes={"anax": probe})).startswith(f"probes.anax.{told}")


def test_encoders_of_features_and_of_pixels_stay_with_their_screens():
    mae = {"kind": "mae", "manifest": "m"}
    manifests = {"m": {"screens": ["lab"], "judges": ["features"]}}
    base = changed(screens={"lab": LAB}, encoders=ENCODERS, manifests=manifests)
    load_config(base)
    told = refused({**base, "encoders": {**ENCODERS, "own": mae}})
    assert told.startswith("encoders.own.manifest: 'own' of kind mae cannot read screen 'lab'")
    probe = {**DEMO["probes"]["anax"], "encoders": ["features"]}
    told = refused({**base, "probes": {**DEMO["probes"], "p": probe}})
    assert told.startswith("probes.p.encoders: 'features' of kind profiles cannot read screen")
    assert told.endswith("'simulated' of source simulated, wanted one that reads images")


@pytest.mark.parametrize(
    ("key", "entry"),
    [
        ("manifests.m.screens", {"screens": ["simulated", "simulated"]}),
        ("manifests.m.screens", {"screens": {"simulated": ["huvec-1", "huvec-1"]}}),
        ("manifests.m.judges", {"screens": ["simulated"], "judges": ["pixels", "pixels"]}),
        ("probes.p.encoders", {"screen": "simulated", "encoders": ["pixels", "pixels"]}),
        ("benchmarks.b.encoders", {"screen": "simulated", "encoders": ["pixels", "pixels"]}),
        ("align.fit.experiments", {"experiments": ["huvec-1", "huvec-1"]}),
        ("consistency.pvalues.levels", {"levels": ["gene", "gene"]}),
    ],
)
def test_a_list_of_names_holds_each_once(key, entry):
    group, name, _ = key.split(".")
    message = refused(changed(**{group: {**DEMO.get(group, {}), name: entry}}))
    assert message.startswith(f"{key}: '") and "is listed twice, wanted once" in message
