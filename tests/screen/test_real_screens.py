"""The shipped configurations read the real public screens that they are made for."""

import json

import imagecodecs
import numpy as np
import polars as pl
import pytest
import yaml

from phenopipe.embed import prepare
from phenopipe.embed import wells as embed
from phenopipe.formats.embeddings import read_block
from phenopipe.formats.images import open_pixels, read_images
from phenopipe.formats.profiles import read_profiles
from phenopipe.formats.wells import conditions, read_wells
from phenopipe.screen import annotate, images, profiles
from phenopipe.screen.config import AnnotateKnobs, ImagesKnobs, ProfilesKnobs
from tests.screen.public import ome_image, write_attributes


def entry(root, name):
    return yaml.safe_load((root / f"configs/{name}.yaml").read_text())["screens"][name]


def knobs_of(kind, screen, experiment):
    """The experiment's knobs and tables, put together as the roof does."""
    own = {**screen, **screen["experiments"][experiment]}
    tables = own.pop("tables")
    fields = {name: value for name, value in own.items() if name in kind.model_fields}
    return kind.model_validate(fields), tables


def outputs(folder, *names):
    ends = {"pixels": "images.zarr"}
    paths = {name: folder / ends.get(name, f"{name}.parquet") for name in names}
    return [word for name, path in paths.items() for word in (f"--{name}", str(path))]


def read(folder, data, kind, step, screen, experiment, *names):
    knobs, tables = knobs_of(kind, screen, experiment)
    files = ["--table", *(str(data / table) for table in tables)]
    argv = [*files, "--screen", "real", "--experiment", experiment, *knobs.as_flags()]
    step.main([*argv, *outputs(folder, *names)])
    return read_wells(folder / "wells.parquet")


@pytest.mark.parametrize("experiment", ["rows-ABEF", "rows-CDGH"])
def test_bbbc013_is_two_experiments_of_48_wells_with_two_replicates(
    root, shared, tmp_path, experiment
):
    screen, data = entry(root, "bbbc013"), shared / "bbbc013_images"
    names = ("wells", "images", "pixels")
    wells = read(tmp_path, data, ImagesKnobs, images, screen, experiment, *names)
    counts = dict(wells["role"].value_counts().iter_rows())
    assert counts == {"negative_control": 8, "positive_control": 4, "perturbation": 36}
    assert set(wells["well"].str.head(1)) == set(experiment.removeprefix("rows-"))
    tested = wells.filter(pl.col("role") == "perturbation")
    replicates = conditions(tested).group_by("perturbation", "concentration_um").len()
    assert replicates.height == 18 and set(replicates["len"]) == {2}
    doses = conditions(tested).group_by("perturbation").agg(pl.col("concentration_um").max())
    assert dict(doses.iter_rows()) == {"wortmannin": 0.25, "LY294002": 80.0}
    sites, store = (
        read_images(tmp_path / "images.parquet"),
        open_pixels(tmp_path / "images.zarr"),
    )
    assert sites["index"].to_list() == list(range(48)) and store.shape == (48, 2, 640, 640)
    last = wells["well"][47]
    for at, channel in enumerate(("w1", "w2")):
        file = data / f"images/{last}_{channel}.png"
        assert np.array_equal(store[47, at], imagecodecs.png_decode(file.read_bytes()))


def test_cpjump1_has_904_features_of_1536_wells_and_targets_of_all_compounds(
    root, shared, tmp_path
):
    screen, data = entry(root, "cpjump1"), shared / "cpjump1_compound_profiles"
    names = ("wells", "images", "profiles")
    listed = []
    for experiment in screen["experiments"]:
        wells = read(tmp_path, data, ProfilesKnobs, profiles, screen, experiment, *names)
        features = read_profiles(tmp_path / "profiles.parquet").drop("well_id")
        assert features.shape == (768, 904) and np.isfinite(features.to_numpy()).all()
        counts = dict(wells["role"].value_counts().iter_rows())
        assert counts == {"negative_control": 128, "positive_control": 120, "perturbation": 520}
        listed.append(conditions(wells))
    both = pl.concat(listed)
    assert both["perturbation"].n_unique() == 302
    assert both.group_by("perturbation").len()["len"].min() == 4
    knobs = AnnotateKnobs.model_validate(screen["annotate"])
    table = ["--interactions", str(data / screen["interactions"]), "--genes"]
    known = outputs(tmp_path, "known-genes", "known-interactions")
    annotate.main([*table, *known, "--screen", "real", *knobs.as_flags()])
    targets = pl.read_parquet(tmp_path / "known-interactions.parquet")
    assert set(both["perturbation"]) <= set(targets["treatment"])
    assert set(targets["nM_value"]) == {100.0}


def test_a_real_six_channel_field_of_16_bit_keeps_every_pixel(shared, tmp_path):
    data = shared / "cellpainting_6ch_field"
    stains = ["Brightfield", "ER", "AGP", "Mito", "DNA", "RNA"]
    pl.DataFrame(
        {"plate": "BR00143976", "well": "C03", "site": 3, "number": range(1, 7)}
    ).write_csv(tmp_path / "field.csv")
    knobs = ImagesKnobs.model_validate(
        {
            "columns": {
                "plate": "plate",
                "well": "well",
                "role": {"constant": "empty"},
                "cell_type": {"constant": "DAOY"},
            },
            "roles": {},
            "site": "site",
            "root": str(data),
            "channels": stains,
            "channel": "number",
            "channel_words": {stain: [str(at)] for at, stain in enumerate(stains, start=1)},
            "file": {"template": "{plate}_{well}_f{site:02d}_ch{number}.png"},
        }
    )
    argv = ["--table", str(tmp_path / "field.csv"), "--screen", "s", "--experiment", "e"]
    names = outputs(tmp_path, "wells", "images", "pixels")
    images.main([*argv, *knobs.as_flags(), *names])
    store = open_pixels(tmp_path / "images.zarr")
    assert store.shape == (1, 6, 1080, 1080) and store.dtype == np.uint16
    for at in range(6):
        file = data / f"BR00143976_C03_f03_ch{at + 1}.png"
        assert np.array_equal(store[0, at], imagecodecs.png_decode(file.read_bytes()))


def embedded(folder, model, experiment="e"):
    """Embeddings of the wells that a screen step left in a folder."""
    argv = [f"--{name}={folder / name}.parquet" for name in ("wells", "images")]
    argv += [f"--pixels={folder}/images.zarr", f"--model={model}/model.safetensors"]
    argv += [f"--config={model}/config.json", f"--embeddings={folder}/embeddings.zarr"]
    embed.main([*argv, "--screen=s", "--encoder=x", f"--experiment={experiment}"])
    return read_block(folder / "embeddings.zarr", 2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("scaling", [None, {"method": "percentiles"}])
def test_a_real_field_gives_the_same_embedding_as_files_and_as_ome_zarr(
    shared, tmp_path, version, scaling
):
    data = shared / "cellpainting_6ch_field"
    stains = ["Brightfield", "ER", "AGP", "Mito", "DNA", "RNA"]
    field = {"plate": "P", "well": "C03", "role": "empty", "cell_type": "DAOY"}
    named = {stain: f"BR00143976_C03_f03_ch{at}.png" for at, stain in enumerate(stains, 1)}
    table = tmp_path / "field.csv"
    pl.DataFrame([field | named]).write_csv(table)
    planes = [imagecodecs.png_decode((data / name).read_bytes()) for name in named.values()]
    plate = tmp_path / "P.ome.zarr"
    write_attributes(plate, version, {"plate": {"wells": [{"path": "C/3"}]}})
    write_attributes(plate / "C/3", version, {"well": {"images": [{"path": "0"}]}})
    ome_image(plate / "C/3/0", version, np.stack(planes), stains)
    shared_knobs = {
        "columns": {name: name for name in ("plate", "well", "role", "cell_type")},
        "roles": {},
        "channels": ["DNA", "Mito", "AGP", "RNA", "ER"],
        "scaling": scaling,
    }
    files = {"files": {stain: stain for stain in shared_knobs["channels"]}, "root": str(data)}
    model = tmp_path / "model"
    tiny = {"patch_size": 16, "embed_dim": 32, "depth": 2, "num_heads": 2}
    argv = ["--kind=timm", f"--channels={json.dumps(shared_knobs['channels'])}", "--crop=256"]
    paths = {"model": "model.safetensors", "config": "config.json", "card": "README.md"}
    argv += [f"--{name}={model / path}" for name, path in paths.items()]
    prepare.main([*argv, f"--model-args={json.dumps(tiny)}", "--encoder=x", "--weights"])
    found = []
    for name, own in (("files", files), ("ome", {"source": "ome_zarr", "root": str(tmp_path)})):
        knobs = ImagesKnobs.model_validate({**shared_knobs, **own})
        out = outputs(tmp_path / name, "wells", "images", "pixels")
        argv = ["--table", str(table), "--screen=s", "--experiment=e", *knobs.as_flags(), *out]
        images.main(argv)
        found.append(embedded(tmp_path / name, model))
    assert found[0].shape == (1, 32) and np.abs(found[0]).max() > 0.01
    assert np.array_equal(*found)
