import numpy as np

from phenopipe.qc.artefacts import brightest_squares


def squares(images):
    shape = images.shape[:2]
    return brightest_squares(images, np.full(shape, 6.0), np.full(shape, 60.0))


def test_debris_rises_over_its_own_field(made_up):
    rng = np.random.default_rng(0)
    clean = np.stack([made_up.to_bytes(made_up.field(rng)) for _ in range(12)])
    dirty = clean[:6].astype(float)
    dirty[:, :, 30:48, 50:68] += 150
    before, after = squares(clean), squares(np.clip(dirty, 0, 255).astype(np.uint8))
    for part in (8, 16):
        assert after[f"rise_{part}"].min() > before[f"rise_{part}"].max()
        assert after[f"peak_{part}"].min() > before[f"peak_{part}"].max()


def test_bright_cells_do_not_rise_over_their_own_field(made_up):
    plain, bright = (
        made_up.to_bytes(made_up.field(np.random.default_rng(1), light=light))
        for light in ((50, 40, 40), (100, 80, 80))
    )
    found = squares(np.stack([plain, bright]))
    assert abs(np.diff(found["rise_8"])) < 0.15 < 0.5 < np.diff(found["peak_8"])


def test_an_empty_field_has_a_peak_all_the_same():
    found = squares(np.full((1, 2, 64, 64), 6, np.uint8))
    assert all(np.isfinite(values).all() for values in found.values())
