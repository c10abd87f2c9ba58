import json

import pytest
import torch

from phenopipe.encoders.folder import load_encoder
from phenopipe.errors import UserError
from phenopipe.pretrain import classifier, mae
from phenopipe.pretrain.config import ClassifierKnobs

from .conftest import make_screen
from .test_mae import command


def start_of(folder):
    return [
        f"--start-model={folder}/encoder/model.safetensors",
        f"--start-config={folder}/encoder/config.json",
    ]


def weights(folder):
    return load_encoder(folder / "encoder").model.state_dict()


def learned(state):
    return {name: x for name, x in state.items() if "pos_embed" not in name}


@pytest.fixture(scope="module")
def first(screen, tmp_path_factory):
    folder = tmp_path_factory.mktemp("first")
    mae.main(command(screen, folder))
    return folder


def test_a_warm_start_begins_with_the_weights_of_the_other_encoder(screen, first, tmp_path):
    slow = {"updates": 1, "lr": 1e-9}
    mae.main([*command(screen, tmp_path / "warm", **slow), *start_of(first)])
    mae.main(command(screen, tmp_path / "cold", **slow))
    before, warm, cold = (weights(p) for p in (first, tmp_path / "warm", tmp_path / "cold"))
    assert all(torch.allclose(before[n], warm[n], atol=1e-7) for n in before)
    assert not all(torch.allclose(before[n], cold[n], atol=1e-7) for n in learned(before))


def test_crops_and_operations_of_the_start_count(screen, first, tmp_path):
    mae.main([*command(screen, tmp_path, updates=3), *start_of(first)])
    alone, both = (
        json.loads((folder / "encoder/config.json").read_text()) for folder in (first, tmp_path)
    )
    assert alone["crops_seen"] == 48 and both["crops_seen"] == 48 + 12
    assert both["training_flops"] == pytest.approx(alone["training_flops"] * 60 / 48)
    assert both["phenopipe"]["inputs"]["start_model"]


def test_another_start_is_another_training(screen, first, tmp_path):
    flags = [*command(screen, tmp_path, updates=3), *start_of(first)]
    mae.main(flags)
    mae.main(command(screen, tmp_path, updates=3))
    # The states of the first are in another folder: nothing of them was taken up.
    assert len(list((tmp_path / "states").iterdir())) == 2


@pytest.mark.parametrize(
    ("knobs", "told"),
    [
        ({"depth": 3}, "model_args.depth is 2 there and 3 here"),
        ({"dim": 32}, "model_args.dim is 16 there and 32 here"),
        ({"channel_agnostic": True}, "kind is 'mae' there and 'ca_mae' here"),
    ],
)
def test_another_architecture_is_told_by_its_first_difference(
    screen, first, tmp_path, knobs, told
):
    with pytest.raises(UserError, match=told) as caught:
        mae.main([*command(screen, tmp_path, **knobs), *start_of(first)])
    assert "\n" not in str(caught.value) and str(first) in str(caught.value)
    assert not (tmp_path / "encoder").exists()


def test_channels_in_another_order_are_told(first, tmp_path):
    swapped = make_screen(tmp_path / "swapped", channels=("actin", "dna"))
    with pytest.raises(UserError, match="found dna, actin there and actin, dna here"):
        mae.main([*command(swapped, tmp_path), *start_of(first)])


def test_a_classifier_starts_from_an_encoder_with_a_new_head(screen, tmp_path):
    def run(name, *more, **knobs):
        out = tmp_path / name
        settings = ClassifierKnobs(
            crop=16,
            model_args={"patch_size": 4, "embed_dim": 16, "depth": 2, "num_heads": 2},
            batch=4,
            checkpoints=str(out / "states"),
            **knobs,
        )
        files = {
            "wells": screen.wells,
            "images": screen.images,
            "pixels": screen.pixels,
            "model": out / "encoder/model.safetensors",
            "config": out / "encoder/config.json",
            "card": out / "encoder/README.md",
            "history": out / "history.parquet",
        }
        flags = [f"--{key}={path}" for key, path in files.items()]
        classifier.main([*flags, "--encoder=tiny", *settings.as_flags(), *more])
        return out

    before = run("first", updates=6, seed=1)
    warm = run("warm", *start_of(before), updates=1, lr=1e-9)
    old, new = weights(before), weights(warm)
    assert all(torch.allclose(old[n], new[n], atol=1e-7) for n in old)
    assert load_encoder(warm / "encoder").config.crops_seen == 28
