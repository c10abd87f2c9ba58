import imagecodecs
import numpy as np

from phenopipe.pretrain.mae import main
from phenopipe.pretrain.panels import GAP, LEAST_SIDE, draw_panel
from tests.pretrain.test_mae import command


def test_panel_shows_input_mask_output_and_error_of_each_channel():
    ramp = np.tile(np.linspace(0, 1, 64), (64, 1))
    given = np.stack([ramp, ramp.T])[None]
    hidden = np.zeros(given.shape, dtype=np.uint8)
    hidden[:, :, :, 32:] = 1
    panel = draw_panel({"input": given, "output": np.zeros_like(given), "mask": hidden})
    edge = LEAST_SIDE + GAP
    assert panel.shape == (2 * edge - GAP, 4 * edge - GAP)
    shown, seen, painted, wrong = (
        panel[:64, at * edge : at * edge + 64].astype(int) for at in range(4)
    )
    assert (np.diff(shown[0]) >= 0).all() and shown[0, 0] == 0 and shown[0, -1] == 255
    assert (seen[:, :32] == shown[:, :32]).all() and (seen[:, 32:] == 128).all()
    assert (painted[:, 32:] == 0).all()
    assert (wrong[:, :32] == 0).all() and wrong[0, -1] == 255


def test_training_leaves_a_picture_at_set_updates_and_is_not_changed_by_it(screen, tmp_path):
    main(command(screen, tmp_path / "watched", panels_every=4, drop_path=0.5))
    main(command(screen, tmp_path / "plain", drop_path=0.5))
    names = [path.name for path in sorted((tmp_path / "watched/panels").iterdir())]
    assert names == [f"update-{update:09d}.png" for update in (4, 8, 12)]
    assert list((tmp_path / "plain/panels").iterdir()) == []
    # Two images of two channels each, enlarged four times.
    first = imagecodecs.png_decode((tmp_path / "watched/panels" / names[0]).read_bytes())
    assert first.shape == (4 * (64 + GAP) - GAP, 4 * (64 + GAP) - GAP)
    model = "encoder/model.safetensors"
    watched, plain = ((tmp_path / name / model).read_bytes() for name in ("watched", "plain"))
    assert watched == plain
