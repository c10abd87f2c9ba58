import pytest
import torch

from phenopipe.encoders.base import EncoderConfig
from phenopipe.encoders.channel_agnostic import ChannelAgnosticAutoencoder
from phenopipe.encoders.mae import patchify
from phenopipe.encoders.vit import MaeEncoder

TINY = {
    "crop": 16,
    "patch": 4,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "decoder_dim": 16,
    "decoder_depth": 1,
    "decoder_heads": 2,
}


def test_parameter_count_of_the_papers_model():
    with torch.device("meta"):
        model = ChannelAgnosticAutoencoder()
    trainable = sum(p.numel() for p in model.encoder.parameters() if p.requires_grad)
    assert trainable / 1e6 == pytest.approx(21.4, abs=0.05)
    assert model.encoder.pos_embed.shape == (1, 1 + 256 * 11, 384)


@pytest.mark.parametrize("channels", range(1, 12))
def test_one_to_eleven_channels(channels):
    torch.manual_seed(0)
    model = ChannelAgnosticAutoencoder(channels=11, **TINY)
    out = model(torch.rand(2, channels, 16, 16), torch.rand(2, 16 * channels))
    out.loss.backward()
    assert out.prediction.shape == (2, 16 * channels, 16)
    assert torch.isfinite(out.loss)


def test_batches_of_different_channels_train_one_model():
    torch.manual_seed(0)
    model = ChannelAgnosticAutoencoder(channels=11, **TINY, drop_path=0.5)
    learned = set()
    for channels in (6, 1, 11, 3):
        model.zero_grad()
        noise, drop = torch.rand(2, 16 * channels), torch.ones(2, 2)
        model(torch.rand(2, channels, 16, 16), noise, drop).loss.backward()
        learned = {name for name, p in model.named_parameters() if p.grad is not None}
        painters = {name.split(".")[2] for name in learned if name.startswith("decoder.blocks")}
        assert painters == {str(at) for at in range(channels)}
    assert len(learned) > 20


def test_channels_are_embedded_by_one_convolution():
    model = ChannelAgnosticAutoencoder(channels=11, **TINY)
    calls = []
    model.encoder.patch_embed.proj.register_forward_hook(lambda *_: calls.append(1))
    model(torch.rand(2, 11, 16, 16), torch.rand(2, 176))
    assert len(calls) == 1


def test_decoder_has_as_many_channels_as_are_asked_for():
    sizes = {}
    for channels in (4, 6):
        with torch.device("meta"):
            decoder = ChannelAgnosticAutoencoder(channels=channels).decoder
        sizes[channels] = sum(p.numel() for p in decoder.parameters() if p.requires_grad) / 1e6
    assert sizes[6] == pytest.approx(154.5, rel=0.01)
    assert sizes[4] < 0.7 * sizes[6]


def test_tokens_run_channel_by_channel_and_equal_a_loop_over_channels():
    torch.manual_seed(0)
    model = ChannelAgnosticAutoencoder(channels=3, **TINY)
    images = torch.rand(2, 3, 16, 16)
    proj = model.encoder.patch_embed.proj
    looped = [proj(images[:, c : c + 1]).flatten(2).transpose(1, 2) for c in range(3)]
    assert torch.allclose(model.encoder.patch_embed(images), torch.cat(looped, 1), atol=1e-6)
    targets = [patchify(images[:, c : c + 1], 4) for c in range(3)]
    assert torch.equal(model.targets(images), torch.cat(targets, dim=1))


def test_masks_fall_on_all_channels_together():
    torch.manual_seed(0)
    model = ChannelAgnosticAutoencoder(channels=3, **TINY)
    mask = model(torch.rand(8, 3, 16, 16), torch.rand(8, 48)).mask
    assert (mask.sum(dim=1) == 36).all()
    assert mask.reshape(8, 3, 16).sum(dim=2).std() > 0


def test_mean_embedding_does_not_depend_on_the_order_of_channels():
    torch.manual_seed(0)
    model = ChannelAgnosticAutoencoder(channels=3, **TINY)
    for block in model.encoder.blocks:
        block.ls.gamma.data.fill_(1.0)
    config = EncoderConfig("ca_mae", "ca_mae", ("a", "b", "c"), 16)
    encoder = MaeEncoder(config, model.encoder).eval()
    images = torch.rand(2, 3, 16, 16)
    first, second = (encoder.forward_blocks(x) for x in (images, images[:, [2, 0, 1]]))
    assert torch.allclose(first, second, atol=1e-5)


def test_released_and_patch_form_agree_where_the_grid_is_as_wide_as_a_patch():
    losses = []
    for form in ("as_released", "patch"):
        torch.manual_seed(0)
        model = ChannelAgnosticAutoencoder(channels=2, fourier=form, **TINY)
        losses.append(model(torch.rand(2, 2, 16, 16), torch.rand(2, 32)).fourier.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
