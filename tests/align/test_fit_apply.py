"""Both steps on three small experiments: the same as the normalizers in memory."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from phenopipe.align import apply, center, fit, middles, moments
from phenopipe.align.config import FitKnobs, MomentsKnobs
from phenopipe.align.embedded import Fitted, fitted_wells, read_embedded
from phenopipe.align.pca import ControlPCANormalizer
from phenopipe.align.tvn import TypicalVariationNormalizer
from phenopipe.errors import UserError
from phenopipe.formats.aligned import read_aligned
from phenopipe.formats.controls import CONTROLS
from phenopipe.formats.embeddings import read_block, read_well_ids, write_embeddings
from phenopipe.formats.qc import read_qc_wells, write_qc_wells
from phenopipe.formats.tables import read_table
from phenopipe.formats.transforms import read_transform

from .conftest import wells_of

LABELS = ["--screen", "s", "--encoder", "e"]
CHOICE = ("--control-role", "--holdout", "--seed")


def run_fit(folder, names, *flags, to="transform.npz"):
    """Moments of each experiment, axes, middles where they are wanted, transform."""
    pairs = list(zip(flags[::2], flags[1::2], strict=True))
    chosen = [word for pair in pairs if pair[0] in CHOICE for word in pair]
    rest = [word for pair in pairs if pair[0] not in CHOICE for word in pair]
    gathered = [run_moments(folder, name, *chosen) for name in names]
    axes = folder / f"axes-{to}"
    tables = ["--axes", str(axes), "--controls", str(folder / "controls.parquet")]
    fit.main(["--moments", *map(str, gathered), *tables, *LABELS, *rest])
    middles = []
    if ("--center-on", "wells") in pairs:
        middles = [run_middles(folder, name, axes) for name in names]
    paths = ["--axes", axes, "--middles", *middles, "--transform", folder / to]
    center.main([*map(str, paths), *LABELS])
    return folder / to


def run_moments(folder, name, *flags):
    paths = ["--embeddings", folder / f"{name}.zarr", "--wells", folder / f"{name}.parquet"]
    paths += ["--moments", folder / f"{name}-moments.npz", "--experiment", name]
    moments.main([*map(str, paths), *LABELS, *flags])
    return folder / f"{name}-moments.npz"


def run_middles(folder, name, axes):
    paths = ["--embeddings", folder / f"{name}.zarr", "--wells", folder / f"{name}.parquet"]
    paths += ["--axes", axes, "--middles", folder / f"{name}-middles.npz"]
    middles.main([*map(str, paths), *LABELS, "--experiment", name])
    return folder / f"{name}-middles.npz"


def run_apply(folder, name, transform, to="aligned.parquet", *flags):
    inputs = ["--embeddings", folder / f"{name}.zarr", "--wells", folder / f"{name}.parquet"]
    labels = ["--screen", "s", "--encoder", "e", "--experiment", name]
    paths = [*inputs, "--transform", transform, "--aligned", folder / to]
    apply.main([*map(str, paths), *labels, *flags])
    return read_aligned(folder / to)


def in_memory(folder, names, holdout=0.2, seed=0):
    parts = [read_embedded(folder / f"{n}.zarr", folder / f"{n}.parquet") for n in names]
    fitted = [fitted_wells(p.wells, "negative_control", holdout, seed) for p in parts]
    experiment_W = np.concatenate([p.wells["experiment"].to_numpy() for p in parts])
    return np.concatenate([p.x for p in parts]), fitted, experiment_W


@pytest.mark.parametrize(
    ("flags", "normalizer"),
    [
        ([], TypicalVariationNormalizer(center_by_experiment=True)),
        (["--center-by-experiment", "false"], TypicalVariationNormalizer()),
        (["--regularization", "2", "--n-components", "3"],
         TypicalVariationNormalizer(2, center_by_experiment=True, n_components=3)),
        (["--center-on", "wells"], TypicalVariationNormalizer(center_by_experiment=True)),
        (["--method", "pca"], ControlPCANormalizer()),
        (["--method", "pca", "--center-on", "wells"], ControlPCANormalizer()),
        (["--method", "pca", "--n-components", "4"], ControlPCANormalizer(4)),
    ],
)  # fmt: skip
def test_the_steps_equal_the_normalizer_on_all_wells_in_memory(screen, flags, normalizer):
    folder, names = screen
    transform = run_fit(folder, names, *flags)
    x_WD, fitted, experiment_W = in_memory(folder, names)
    is_control_W = np.concatenate([each.controls for each in fitted])
    is_center_W = None
    if "wells" in flags:
        is_center_W = np.concatenate([each.wells for each in fitted])
    normalizer.fit(x_WD, is_control_W, experiment_W, is_center_W)
    aligned = [run_apply(folder, name, transform) for name in names]
    expected = normalizer.transform(x_WD, experiment_W)
    np.testing.assert_allclose(np.concatenate([x for _, x in aligned]), expected, atol=1e-5)
    told = np.concatenate([wells["fitted"].to_numpy() for wells, _ in aligned])
    np.testing.assert_array_equal(told, is_control_W if is_center_W is None else is_center_W)


def test_without_a_method_wells_pass_as_they_are(screen):
    folder, names = screen
    transform = run_fit(folder, names, "--method", "none")
    wells, x_WD = run_apply(folder, names[0], transform)
    embedded = read_embedded(folder / f"{names[0]}.zarr", folder / f"{names[0]}.parquet")
    np.testing.assert_array_equal(x_WD, embedded.x)
    # Two wells fail qc and one has no finite embedding.
    assert wells.height == 37
    assert wells["fitted"].sum() == 12


def test_wells_are_held_out_by_their_own_hash():
    wells = wells_of("e", ["negative_control"] * 10 + ["perturbation"] * 5)
    fitted = fitted_wells(wells, "negative_control", 0.25, seed=0)
    assert fitted.controls.sum() == 8
    assert fitted.wells.sum() == 12
    order_W = np.random.default_rng(0).permutation(15)
    moved = fitted_wells(wells[order_W], "negative_control", 0.25, seed=0)
    np.testing.assert_array_equal(moved.wells, fitted.wells[order_W])
    # An experiment is never left without controls.
    assert fitted_wells(wells[:1], "negative_control", 0.99, seed=0).controls.all()


def test_files_in_any_order_give_the_same_bytes(screen):
    folder, names = screen
    first = run_fit(folder, names, to="first.npz")
    inputs = [read_transform(first)]
    second = read_transform(run_fit(folder, names[::-1], to="second.npz"))
    np.testing.assert_array_equal(inputs[0].projection, second.projection)
    assert run_fit(folder, names, to="third.npz").read_bytes() == first.read_bytes()


def test_a_frozen_transform_aligns_a_later_experiment(screen):
    folder, names = screen
    listed = '["experiment-1", "experiment-2"]'
    frozen = run_fit(folder, names, "--experiments", listed, to="frozen.npz")
    early = run_fit(folder, names[:2], "--experiments", listed, to="early.npz")
    one, other = read_transform(frozen), read_transform(early)
    np.testing.assert_array_equal(one.projection, other.projection)
    assert one.experiments == {"experiment-1": 12, "experiment-2": 12}
    wells, x_WD = run_apply(folder, "experiment-3", frozen)
    controls = x_WD[wells["fitted"].to_numpy()]
    np.testing.assert_allclose(controls.mean(axis=0), 0, atol=1e-5)


def rewrite_roles(path, role):
    wells = read_qc_wells(path).with_columns(role=pl.lit(role))
    write_qc_wells(path, wells, {})


def test_an_experiment_without_controls_ends_in_one_line(screen):
    folder, names = screen
    transform = run_fit(folder, names)
    rewrite_roles(folder / "experiment-2.parquet", "perturbation")
    line = "experiment experiment-2 has 0 wells of role negative_control"
    with pytest.raises(UserError, match=line) as error:
        run_fit(folder, names)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=line):
        run_apply(folder, "experiment-2", transform, "never.parquet")
    assert not (folder / "never.parquet").exists()
    with pytest.raises(UserError, match=r"has 12 wells .* wanted at least 13"):
        run_apply(folder, "experiment-1", transform, "never.parquet", "--min-controls", "13")


def set_aside(path):
    flags = read_qc_wells(path).with_columns(passes=pl.lit(False), reason=pl.lit("experiment"))
    write_qc_wells(path, flags, {})


@pytest.mark.parametrize(
    "flags",
    [(), ("--method", "pca"), ("--method", "none"), ("--center-on", "wells")],
)
def test_an_experiment_that_qc_set_aside_changes_no_other(screen, flags):
    folder, names = screen
    set_aside(folder / "experiment-2.parquet")
    transform = run_fit(folder, names, *flags)
    listed = set(read_table(folder / "controls.parquet", CONTROLS)["experiment"])
    assert listed == {"experiment-1", "experiment-3", None}
    alone = run_fit(folder, ["experiment-1", "experiment-3"], *flags, to="alone.npz")
    found, wanted = read_transform(transform), read_transform(alone)
    assert found.experiments == wanted.experiments
    for name in ("center", "projection", "middle"):
        assert np.array_equal(getattr(found, name), getattr(wanted, name))
    wells, x_WD = run_apply(folder, "experiment-2", transform)
    assert wells.height == 0
    assert x_WD.shape == (0, run_apply(folder, "experiment-1", transform)[1].shape[1])


def test_a_screen_that_qc_set_aside_as_a_whole_ends_in_one_line(screen):
    folder, names = screen
    for name in names:
        set_aside(folder / f"{name}.parquet")
    with pytest.raises(UserError, match="no well of any experiment passes qc"):
        run_fit(folder, names)


def test_mistakes_in_the_files_are_told(screen):
    folder, names = screen
    with pytest.raises(UserError, match="'experiment-9' has no moments"):
        run_fit(folder, names, "--experiments", '["experiment-9"]')
    with pytest.raises(UserError, match="wanted one, once"):
        run_fit(folder, [names[0], names[0]])
    (folder / "experiment-2.parquet").rename(folder / "experiment-1.parquet")
    with pytest.raises(UserError, match="no embedding of well experiment-2/plate-1/0"):
        run_fit(folder, names[:1])
    narrow = moments.control_moments("a", np.zeros((3, 2)), MomentsKnobs())
    wide = moments.control_moments("b", np.eye(3), MomentsKnobs())
    with pytest.raises(UserError, match="experiment b: 3 features, wanted 2 as in a"):
        fit.fit_transform([narrow, wide], FitKnobs())
    with pytest.raises(UserError, match="all alike"):
        fit.fit_transform([narrow], FitKnobs())
    other = replace(narrow, experiment="c", settings={**narrow.settings, "seed": 1})
    with pytest.raises(UserError, match=r"experiment c: controls chosen by .* as in a"):
        fit.fit_transform([narrow, other], FitKnobs())
    with pytest.raises(UserError, match="no file, wanted those of at least one"):
        run_fit(folder, [])
    with pytest.raises(UserError, match="embeddings of 2 features, wanted 3"):
        transform, _ = fit.fit_transform([wide], FitKnobs())
        everyone = Fitted(np.ones(1, bool), np.ones(1, bool))
        apply.align_experiment(np.zeros((1, 2)), everyone, transform)


def test_middles_of_other_axes_or_other_experiments_are_refused(screen):
    folder, names = screen
    run_fit(folder, names, "--center-on", "wells")
    axes = folder / "axes-transform.npz"
    gathered = [str(folder / f"{name}-middles.npz") for name in names]

    def run_center(*middles):
        paths = ["--axes", str(axes), "--transform", str(folder / "never.npz")]
        center.main([*paths, *LABELS, "--middles", *middles])

    with pytest.raises(UserError, match=r"middles of experiments \['experiment-1'\], wanted"):
        run_center(gathered[0])
    with pytest.raises(UserError, match="a second time"):
        run_center(*gathered, gathered[0])
    run_fit(folder, names, "--center-on", "wells", "--regularization", "2", to="o.npz")
    with pytest.raises(UserError, match=r"experiment-1-middles.npz: middles on axes"):
        run_center(*gathered)
    run_fit(folder, names)
    assert not (folder / "never.npz").exists()


def test_what_controls_can_tell_is_written_for_each_experiment(screen):
    folder, names = screen
    # Three controls of the last experiment pass qc: two directions.
    path = folder / f"{names[2]}.parquet"
    number = pl.int_range(pl.len())
    role = pl.when(number < 3).then(pl.lit("negative_control")).otherwise(pl.lit("empty"))
    write_qc_wells(path, read_qc_wells(path).with_columns(role=role), {})
    transform = run_fit(folder, names, "--holdout", "0", "--n-components", "5")
    table = read_table(folder / "controls.parquet", CONTROLS)
    assert table["experiment"].to_list() == [*names, None]
    assert table["n_controls"].to_list() == [14, 14, 3, 31]
    assert table["rank"].to_list() == [6, 6, 2, 6]
    assert table["n_kept"].unique().to_list() == [5]
    assert table["n_dropped"].unique().to_list() == [1]
    assert table["n_unscaled"].to_list() == [0, 0, 3, 0]
    ratio = table["largest"] / table["smallest"]
    np.testing.assert_allclose(table["condition"], ratio)
    assert (table["condition"] > 1).all()
    _, x_WD = run_apply(folder, names[2], transform)
    assert np.isfinite(x_WD).all()


def test_the_order_of_wells_in_the_files_changes_no_byte(screen):
    folder, names = screen
    transform = run_fit(folder, names, "--center-on", "wells")
    read = [transform.read_bytes(), run_apply(folder, names[0], transform)]
    for seed, name in enumerate(names):
        path = folder / f"{name}.parquet"
        wells = read_qc_wells(path)
        order_W = np.random.default_rng(seed).permutation(wells.height)
        write_qc_wells(path, wells[order_W], {})
    again = run_fit(folder, names[::-1], "--center-on", "wells", to="again.npz")
    one, other = read_transform(transform), read_transform(again)
    for array in ("center", "projection", "middle"):
        np.testing.assert_array_equal(getattr(one, array), getattr(other, array))
    wells, x_WD = run_apply(folder, names[0], again)
    assert wells.equals(read[1][0])
    np.testing.assert_array_equal(x_WD, read[1][1])


def rename_encoder(folder, name, encoder):
    ids, x_WD = read_well_ids(folder / f"{name}.zarr"), read_block(folder / f"{name}.zarr")
    facts = {"block_numbers": [1], "block_dims": [x_WD.shape[1]], "stamp": {}}
    attributes = {"encoder": encoder}
    write_embeddings(
        folder / f"{name}.zarr", x_WD[:, None], ids, **facts, attributes=attributes
    )


def test_embeddings_of_different_encoders_or_features_never_meet(screen):
    folder, names = screen
    for name in names:
        rename_encoder(folder, name, "one")
    transform = run_fit(folder, names)
    rename_encoder(folder, names[2], "other")
    with pytest.raises(
        UserError, match=r"experiment-3: embeddings of encoder .* other, wanted one"
    ):
        run_fit(folder, names)
    with pytest.raises(UserError, match="encoder or features other, wanted one"):
        run_apply(folder, names[2], transform, "never.parquet")
