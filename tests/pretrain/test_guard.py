import math

import pytest

from phenopipe.errors import UserError
from phenopipe.pretrain.guard import TRUSTED_FROM, Guard
from tests.pretrain.test_loop import squared, training


def test_gradient_far_above_the_running_median_is_refused():
    guard = Guard(10.0, max_skipped=2, max_returns=1)
    assert guard.accepts(1000.0, 1.0)
    assert all(guard.accepts(1.0 + at / 100, 1.0) for at in range(TRUSTED_FROM))
    assert not guard.accepts(15.0, 1.0) and guard.skipped == 1
    assert guard.accepts(9.0, 1.0) and guard.skipped == 0
    assert Guard(None, 2, 1).accepts(1e30, 1.0)


def test_guard_that_was_saved_judges_alike():
    guard = Guard(3.0, max_skipped=0, max_returns=1)
    for at in range(2 * TRUSTED_FROM):
        guard.accepts(1.0 + at % 3, 1.0)
    guard.accepts(math.nan, 1.0)
    again = Guard(3.0, max_skipped=0, max_returns=1)
    again.load(guard.state())
    assert again.gives_up and again.state() == guard.state()
    assert again.accepts(6.0, 1.0) and not again.accepts(6.1, 1.0)


def poisoned(images):
    """Crops whose loss is not finite, by the stream's places: they belong to batch 7."""

    def loss(model, batch):
        found = squared(model, batch)["loss"]
        first = batch[0][0, 0, :2, :2].flatten().tolist()
        return {"loss": found * math.nan if first in images else found}

    return loss


def corners(run, batches):
    crops = [run.stream.batch(number)[0] for number in batches]
    return [crop[0, 0, :2, :2].flatten().tolist() for crop in crops]


def test_after_bad_crops_training_returns_and_goes_on_with_the_next_ones(screen, tmp_path):
    bad = corners(training(screen, tmp_path / "stream"), [6, 7, 8])
    settings = {"loss_of": poisoned(bad), "max_skipped": 2, "updates": 12}
    run = training(screen, tmp_path / "whole", **settings)
    history = run.run()
    assert (run.guard.returns, run.guard.shift) == (1, 9 - 5)
    assert history["update"].to_list() == list(range(1, 13))
    assert history["gradient_norm"].is_finite().all()
    # Update 6 sees what comes after the bad crops: batch 9 of the stream.
    assert history["epoch"][5] == pytest.approx((9 + 1) * 4 / 24)

    def dying(model, batch):
        made.append(1)
        if len(made) == 11:
            raise KeyboardInterrupt
        return poisoned(bad)(model, batch)

    made = []
    with pytest.raises(KeyboardInterrupt):
        training(screen, tmp_path / "cut", **{**settings, "loss_of": dying}).run()
    again = training(screen, tmp_path / "cut", **settings)
    assert again.run().equals(history)
    assert again.model.value.item() == run.model.value.item()


def test_training_that_returns_too_often_stops_with_one_line(screen, tmp_path):
    run = training(screen, tmp_path, updates=12)
    bad = corners(run, range(6, 30))
    run = training(
        screen, tmp_path, loss_of=poisoned(bad), max_skipped=1, max_returns=2, updates=12
    )
    with pytest.raises(UserError, match=r"2 updates running, .* after 2 returns") as caught:
        run.run()
    assert "\n" not in str(caught.value)
