import shutil

import polars as pl
import pytest
import torch
from pydantic import ValidationError

from phenopipe.encoders.folder import load_encoder
from phenopipe.errors import UserError
from phenopipe.pretrain.classifier import main
from phenopipe.pretrain.config import ClassifierKnobs
from phenopipe.pretrain.labels import label_wells
from tests.pretrain.conftest import wells_of

VIT = {"patch_size": 4, "embed_dim": 24, "depth": 2, "num_heads": 3}


def command(screen, out, **knobs):
    settings = ClassifierKnobs(
        **{
            **{"crop": 16, "batch": 8, "updates": 10, "model_args": VIT},
            **{"checkpoints": str(out / "states"), "checkpoint_every": 4, **knobs},
        }
    )
    return [
        f"--wells={screen.wells}",
        f"--images={screen.images}",
        f"--pixels={screen.pixels}",
        f"--model={out}/encoder/model.safetensors",
        f"--config={out}/encoder/config.json",
        f"--card={out}/encoder/README.md",
        f"--history={out}/history.parquet",
        "--encoder=judge",
        *settings.as_flags(),
    ]


def test_classifier_learns_labels_and_leaves_an_encoder_without_head(screen, tmp_path):
    main(command(screen, tmp_path, updates=60, lr=3e-3, flips=False))
    history = pl.read_parquet(tmp_path / "history.parquet")
    assert history["accuracy"].tail(10).mean() > 0.9
    encoder = load_encoder(tmp_path / "encoder")
    assert encoder.config.pooling == "class" and encoder.config.kind == "vit"
    assert encoder.forward_blocks(torch.zeros(1, 2, 16, 16)).shape == (1, 2, 24)
    assert not [name for name, _ in encoder.model.named_parameters() if name.startswith("head")]


def test_any_timm_backbone_will_do(screen, tmp_path):
    main(
        command(
            screen, tmp_path, updates=1, architecture="tf_efficientnet_lite0", model_args={}
        )
    )
    encoder = load_encoder(tmp_path / "encoder")
    assert (encoder.config.kind, encoder.config.pooling) == ("cnn", "mean")


def test_a_class_token_that_is_not_there_is_missed_before_training(screen, tmp_path):
    args = {**VIT, "class_token": False, "global_pool": "avg"}
    with pytest.raises(UserError, match="has no class token, wanted mean"):
        main(command(screen, tmp_path, model_args=args))


def test_a_named_architecture_is_taken_as_it_is():
    assert ClassifierKnobs(architecture="resnet18").model_args == {}
    own = ClassifierKnobs.merged({"architecture": "resnet18"}, {"model_args": {"depth": 2}})
    assert own.model_args == {"depth": 2}
    assert ClassifierKnobs().model_args["embed_dim"] == 128
    with pytest.raises(ValidationError, match="a tag means pretrained weights"):
        ClassifierKnobs(architecture="vit_tiny_patch16_224.augreg_in21k")
    with pytest.raises(ValidationError, match="num_classes follows from the labels"):
        ClassifierKnobs(model_args={"num_classes": 7})


def test_continued_training_gives_the_same_weights(screen, tmp_path):
    args = {**VIT, "drop_path_rate": 0.3, "proj_drop_rate": 0.1}
    main(command(screen, tmp_path / "whole", model_args=args))
    main(command(screen, tmp_path / "cut", model_args=args))
    (states,) = (tmp_path / "cut/states").iterdir()
    shutil.rmtree(max(states.glob("update-*")))
    main(command(screen, tmp_path / "cut", model_args=args))
    whole, cut = (
        (tmp_path / name / "encoder/model.safetensors").read_bytes()
        for name in ("whole", "cut")
    )
    assert whole == cut


def treated(wells, *genes):
    return [
        {"perturbation": g, "kind": "knockout", "gene": g, "guide": g, "concentration_um": None}
        for g in genes
    ]


@pytest.fixture
def wells():
    wells = wells_of("one", 6)
    treatments = [treated(wells, *genes) for genes in ("A", "B", "AB", "C", "", "N")]
    roles = [*["perturbation"] * 4, "empty", "negative_control"]
    return wells.with_columns(
        role=pl.Series(roles),
        treatments=pl.Series(treatments, dtype=wells.schema["treatments"]),
    )


@pytest.mark.parametrize(
    ("controls", "expected"),
    [(True, ["A", "B", "C", "negative_control"]), (False, ["A", "B", "C"])],
)
def test_wells_with_one_perturbation_are_labelled(wells, controls, expected):
    assert label_wells(wells, "gene", controls=controls)["label"].to_list() == expected


def test_column_of_the_wells_can_be_the_label(wells):
    labelled = wells.with_columns(Metadata_dose=pl.Series([1, 2, None, 4, 5, 6]))
    found = label_wells(labelled, "Metadata_dose", controls=False)
    assert found["label"].to_list() == ["1", "2", "4"]


def test_label_without_column_or_classes_gives_one_clear_line(wells):
    with pytest.raises(UserError, match="no column 'dose', wanted perturbation, gene"):
        label_wells(wells, "dose", controls=True)
    with pytest.raises(UserError, match="gives 1 classes among 6 wells"):
        label_wells(wells, "cell_type", controls=False)
    with pytest.raises(UserError, match="no well passes qc"):
        label_wells(pl.DataFrame(), "gene", controls=True)
