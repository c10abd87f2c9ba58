"""Dry runs of the shipped configurations: every table is found, every stage takes part."""

import re

import pytest

from tests.test_workflow import ROOT, dry_run

pytestmark = pytest.mark.workflow


def jobs(config, data, folder):
    """Number of jobs of each rule."""
    flags = ["--configfile", ROOT / f"configs/{config}.yaml"]
    flags += ["--config", f"data={data}"] if data else []
    printed = dry_run("all", "--snakefile", ROOT / "Snakefile", *flags, "-d", folder)
    return {rule: int(n) for rule, n in re.findall(r"^(\w+) +(\d+)$", printed, re.MULTILINE)}


def test_real_images_go_through_the_whole_chain(shared, tmp_path):
    found = jobs("bbbc013", shared / "bbbc013_images", tmp_path)
    assert found["screen_images"] == found["qc_images"] == 2
    for rule in ("embed_prepare", "pretrain_mae", "probe_blocks", "phenoprints_select"):
        assert found[rule] >= 1, rule
    assert found["benchmark_magnitude"] == found["benchmark_replicates"] == found["align_fit"]


def test_real_profiles_need_no_pixels_and_no_training(shared, tmp_path):
    found = jobs("cpjump1", shared / "cpjump1_compound_profiles", tmp_path)
    assert (
        found["screen_profiles"] == found["embed_profiles"] == found["consistency_pvalues"] == 2
    )
    assert found["benchmark_compounds"] == found["benchmark_replicates"] == 1
    assert not {"screen_images", "embed_wells", "pretrain_mae"} & set(found)


def test_rounds_of_curation_are_one_graph(tmp_path):
    found = jobs("iterate", None, tmp_path)
    # Uncurated, curated by the first round's encoder, curated by the second's.
    assert found["pretrain_mae"] == found["phenoprints_select"] == 3
    # Two encoders judge; all three are measured on the same six experiments.
    assert found["consistency_pvalues"] == 2 * 6 and found["align_apply"] == 3 * 6
    assert found["report_page"] == 1


def test_absent_data_end_before_any_job(tmp_path):
    with pytest.raises(AssertionError, match=r"platemap\.csv"):
        jobs("bbbc013", tmp_path / "nowhere", tmp_path)
