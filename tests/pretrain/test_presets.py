import pytest
import torch
from pydantic import ValidationError

from phenopipe.pretrain.config import MaeKnobs
from phenopipe.pretrain.mae import build_autoencoder
from phenopipe.pretrain.presets import PRESETS


def millions(module, *, learning=False):
    return sum(p.numel() for p in module.parameters() if p.requires_grad or not learning) / 1e6


@pytest.mark.parametrize(
    ("preset", "learning", "expected"),
    [
        ("L/8", False, 303.7),
        ("G/8", False, 1843.4),
        ("CA-S/16", True, 21.4),
        # Twelve blocks of 12 D^2 and a patch embedding of 16 * 16 * 6 D, norms and biases.
        ("S/16", True, 21.9),
        ("B/16", True, 86.2),
    ],
)
def test_presets_have_the_papers_parameters(preset, learning, expected):
    with torch.device("meta"):
        model = build_autoencoder(MaeKnobs(preset=preset), 6)
    assert millions(model.encoder, learning=learning) == pytest.approx(expected, abs=0.05)
    if preset != "CA-S/16":
        painted = millions(model.decoder.blocks) + millions(model.decoder.norm)
        assert painted == pytest.approx(25.2, abs=0.05)


@pytest.mark.parametrize(
    ("preset", "lr", "drop_path"),
    [("CA-S/16", 1e-4, 0.1), ("L/8", 3e-5, 0.3), ("G/8", 3e-5, 0.6)],
)
def test_presets_have_the_rates_of_table_5(preset, lr, drop_path):
    knobs = MaeKnobs(preset=preset)
    assert (knobs.lr, knobs.drop_path, knobs.mask_ratio) == (lr, drop_path, 0.75)
    assert knobs.betas == (0.9, 0.95) and knobs.weight_decay == 0.05 and knobs.warmup == 0.1
    assert knobs.crop == 256 and knobs.layer_scale == 1e-4 and knobs.flips
    assert knobs.channel_agnostic == (preset == "CA-S/16")


def test_what_is_set_beside_a_preset_goes_first():
    knobs = MaeKnobs(preset="L/8", depth=3, lr=1.0)
    assert (knobs.depth, knobs.lr, knobs.dim) == (3, 1.0, 1024)


def test_a_later_preset_goes_before_an_earlier_setting():
    section = {"dim": 64, "batch": 9}
    assert MaeKnobs.merged(section, {"preset": "L/8"}).dim == 1024
    assert MaeKnobs.merged({"preset": "L/8"}, {"dim": 64}).dim == 64
    both = MaeKnobs.merged({"preset": "G/8"}, {"preset": "S/16", "heads": 3})
    assert (both.dim, both.heads, both.depth) == (384, 3, 12)
    assert MaeKnobs.merged(section, {"preset": "L/8"}).batch == 9


def test_flags_of_a_preset_give_the_same_knobs():
    knobs = MaeKnobs(preset="G/8", depth=7)
    given = dict(flag.removeprefix("--").split("=", 1) for flag in knobs.as_flags())
    again = MaeKnobs.model_validate(
        {
            key.replace("-", "_"): (0.9, 0.95) if key == "betas" else value
            for key, value in given.items()
        }
    )
    assert again == knobs


def test_presets_set_nothing_that_is_no_knob():
    for preset, settings in PRESETS.items():
        assert set(settings) <= set(MaeKnobs.model_fields), preset


def test_a_preset_is_refused_where_it_is_unknown_or_of_another_kind():
    with pytest.raises(ValidationError, match="preset"):
        MaeKnobs(preset="H/14")
    with pytest.raises(ValidationError, match="wanted kind ca_mae"):
        MaeKnobs(preset="CA-S/16", channel_agnostic=False)
