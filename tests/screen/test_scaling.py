"""16 to 8 bits: closed cases, percentiles of controls by plate, and what is recorded."""

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phenopipe.encoders.standardize import self_standardize
from phenopipe.errors import UserError
from phenopipe.formats.bit_depth import lookup, lookups, to_8_bit
from phenopipe.formats.images import open_pixels, pixel_facts
from phenopipe.screen.scaling import Histogram, Scaling, control_sites, fixed_limits
from tests.screen.public import plane, rxrx3, screen_experiment


@given(
    st.lists(st.integers(0, 65535), min_size=1, max_size=60),
    st.floats(0, 49),
    st.floats(51, 100),
)
def test_percentiles_are_those_of_numpy(values, low, high):
    counted = Histogram(1)
    half = len(values) // 2
    for part in (values[:half], values[half:]):
        counted.add(np.array(part, dtype=np.uint16).reshape(1, 1, -1))
    ((a, b),) = counted.limits((low, high))
    wanted = np.percentile(values, [low, high], method="inverted_cdf")
    assert a == wanted[0] and b == max(wanted[1], wanted[0] + 1)


def test_values_between_the_limits_spread_over_0_to_255():
    pixels = np.array([[[0, 200, 300, 400, 65535]], [[0, 1, 2, 3, 4]]], dtype=np.uint16)
    found = to_8_bit(pixels, lookup([(200, 400), (0, 4)]))
    assert found.dtype == np.uint8
    assert found[:, 0].tolist() == [[0, 0, 128, 255, 255], [0, 64, 128, 191, 255]]
    same = lookups({"a": {"x": (0, 9)}, "b": {"x": (0, 9)}, "c": {"x": (0, 8)}}, ["x"])
    assert same["a"] is same["b"] and same["c"] is not same["a"]


def test_a_dim_channel_of_16_bits_reaches_variance_1_only_when_it_is_scaled():
    torch = pytest.importorskip("torch")
    dim = np.random.default_rng(0).normal(200, 20, (1, 1, 64, 64)).clip(0).astype(np.uint16)
    assert self_standardize(torch.from_numpy(dim)).var() < 0.01
    scaled = to_8_bit(dim[0], lookup([(150, 250)]))[None]
    assert self_standardize(torch.from_numpy(scaled)).var() > 0.99


@pytest.mark.parametrize(
    "bad", [{"percentiles": [99, 1]}, {"percentiles": [-1, 50]}, {"ranges": {"DNA": [9, 9]}}]
)
def test_limits_the_wrong_way_round_are_refused(bad):
    with pytest.raises(ValueError, match="wanted"):
        Scaling(**bad)


def test_a_channel_without_a_range_is_refused_and_all_serves_the_others():
    knobs = Scaling(method="range", ranges={"DNA": (10, 20)})
    with pytest.raises(UserError, match="none for channel 'ER', wanted one for"):
        fixed_limits(knobs, ["1"], ["DNA", "ER"])
    knobs = Scaling(method="range", ranges={"DNA": (10, 20), "all": (0, 99)})
    assert fixed_limits(knobs, ["1"], ["ER", "DNA"]) == {"1": {"ER": (0, 99), "DNA": (10, 20)}}


def test_control_sites_are_spread_evenly_and_all_wells_serve_where_none_is_a_control():
    wells = pl.DataFrame(
        {
            "well_id": [f"w{at}" for at in range(12)],
            "plate": ["a"] * 10 + ["b"] * 2,
            "role": ["negative_control"] * 9 + ["perturbation"] * 3,
        }
    )
    images = wells.select("well_id", image_id="well_id", index=pl.int_range(12))
    found = control_sites(wells, images, Scaling(control_sites=3))
    assert found == {"a": ["w0", "w4", "w8"], "b": ["w10", "w11"]}


SCALING = {"method": "percentiles", "percentiles": [1, 99], "control_sites": 8}


def test_each_plate_is_scaled_by_its_own_controls(tmp_path):
    rxrx3(tmp_path)
    _, images, store = screen_experiment(tmp_path, "rxrx3", "gene-001", scaling=SCALING)
    assert store.dtype == np.uint8
    for index, plate in ((1, 1), (5, 2)):
        assert images["image_id"][index] == f"gene-001/{plate}/A02/1"
        for channel in (1, 6):
            name = f"gene-001/Plate{plate}/{{}}_s1_w{channel}.png"
            control = plane(name.format("A01"), (32, 32), np.uint16)
            low, high = np.percentile(control, [1, 99], method="inverted_cdf").astype(float)
            pixels = plane(name.format("A02"), (32, 32), np.uint16)
            wanted = np.clip(np.rint((pixels - low) * 255 / (high - low)), 0, 255)
            assert np.array_equal(store[index, channel - 1], wanted)
    path = tmp_path / "out/gene-001/images.zarr"
    assert pixel_facts(path) == {
        "pixel_size_um": 0.65,
        "scaling": "percentiles",
        "percentiles": [1, 99],
    }
    assert set(store.attrs["limits"]) == {"1", "2"}
    assert list(store.attrs["limits"]["1"]["Mito"]) != list(store.attrs["limits"]["2"]["Mito"])


def test_pixels_read_in_place_are_those_that_are_decoded_once(tmp_path):
    rxrx3(tmp_path)
    for scaling in (None, SCALING, {"method": "range", "ranges": {"all": [0, 60000]}}):
        changes = {} if scaling is None else {"scaling": scaling}
        wells, images, store = screen_experiment(tmp_path, "rxrx3", "gene-001", **changes)
        once, facts = store[:], pixel_facts(tmp_path / "out/gene-001/images.zarr")
        again = screen_experiment(tmp_path, "rxrx3", "gene-001", decode="in_place", **changes)
        assert again[0].equals(wells) and again[1].equals(images)
        lazy = again[2]
        assert lazy.shape == once.shape and lazy.dtype == once.dtype
        assert np.array_equal(lazy[:], once) and np.array_equal(lazy[3, 2], once[3, 2])
        assert np.array_equal(lazy[2:5, 1], once[2:5, 1])
        assert np.array_equal(lazy.get_orthogonal_selection([6, 1]), once[[6, 1]])
        assert pixel_facts(tmp_path / "out/gene-001/images.zarr") == facts


def test_damage_that_is_found_when_read_in_place_blackens_its_site(tmp_path, capsys):
    rxrx3(tmp_path)
    cut = tmp_path / "images/gene-001/Plate1/A02_s1_w4.png"
    cut.write_bytes(cut.read_bytes()[:-40])
    _, _, store = screen_experiment(tmp_path, "rxrx3", "gene-001", decode="in_place")
    assert not store[1].any() and store[2].all()
    (told,) = capsys.readouterr().err.splitlines()
    assert "A02_s1_w4.png: cannot be decoded" in told and told.endswith("the site is black")


def test_equal_runs_in_place_give_equal_bytes(tmp_path):
    rxrx3(tmp_path)
    texts = []
    for _ in range(2):
        screen_experiment(tmp_path, "rxrx3", "gene-001", decode="in_place", scaling=SCALING)
        out = tmp_path / "out/gene-001/images.zarr"
        texts.append([(out / name).read_bytes() for name in ("zarr.json", "sites.parquet")])
    assert texts[0] == texts[1]
    assert open_pixels(out).attrs["fingerprint"]
