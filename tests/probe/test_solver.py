import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from phenopipe.probe.logistic import balanced_accuracy, fit_probe, predict
from phenopipe.probe.solver import Objective, minimize, search_line


def made_up(n_wells=300, n_features=12, n_classes=4, signal=0.5, seed=0):
    """Standardized, correlated features of classes of unequal size."""
    rng = np.random.default_rng(seed)
    class_N = rng.choice(
        n_classes, n_wells, p=np.arange(1, n_classes + 1) * 2 / (n_classes * (n_classes + 1))
    )
    centre_KD = signal * rng.normal(size=(n_classes, n_features))
    mix_DD = rng.normal(size=(n_features, n_features)) * np.arange(1, n_features + 1) ** -0.7
    x_ND = (centre_KD[class_N] + rng.normal(size=(n_wells, n_features))) @ mix_DD
    x_ND = (x_ND - x_ND.mean(axis=0)) / x_ND.std(axis=0)
    return np.column_stack([x_ND, np.ones(n_wells)]), class_N


def sklearn_objective(coef_KD, intercept_K, x_ND, class_N):
    """The objective as scikit-learn documents it, one vector for two classes."""
    n_classes = class_N.max() + 1
    weight_N = (len(class_N) / (n_classes * np.bincount(class_N)))[class_N]
    z_NK = x_ND[:, :-1] @ coef_KD.T + intercept_K
    if z_NK.shape[1] == 1:
        z_NK = np.column_stack([np.zeros(len(z_NK)), z_NK])
    entropy_N = np.log(np.exp(z_NK).sum(axis=1)) - z_NK[np.arange(len(z_NK)), class_N]
    return (weight_N @ entropy_N + (coef_KD**2).sum() / 2) / len(x_ND)


def as_sklearn(weight_DK):
    """Coefficients in scikit-learn's shape: the difference of two classes is one vector."""
    if weight_DK.shape[1] == 2:
        weight_DK = weight_DK[:, 1:] - weight_DK[:, :1]
    return weight_DK[:-1].T, weight_DK[-1]


@pytest.mark.parametrize("n_classes", [2, 4, 30])
@pytest.mark.parametrize("n_features", [5, 120])
def test_the_minimum_and_the_predictions_are_those_of_scikit_learn(n_classes, n_features):
    x_ND, class_N = made_up(n_features=n_features, n_classes=n_classes)
    peer = LogisticRegression(class_weight="balanced", tol=1e-8, max_iter=10_000)
    peer.fit(x_ND[:, :-1], class_N)
    wanted = sklearn_objective(peer.coef_, peer.intercept_, x_ND, class_N)
    found = minimize(x_ND, class_N, n_classes, max_iter=10_000, tolerance=1e-7)
    assert found.converged
    own = sklearn_objective(*as_sklearn(found.weight_DK), x_ND, class_N)
    assert own == pytest.approx(wanted, rel=1e-6)
    assert found.objective == pytest.approx(wanted, rel=1e-6)
    said_N = (x_ND @ found.weight_DK).argmax(axis=1)
    assert (said_N == peer.predict(x_ND[:, :-1])).all()


@pytest.mark.parametrize("signal", [0.1, 0.5, 3.0])
@pytest.mark.parametrize(("n_features", "n_classes"), [(8, 2), (100, 3), (400, 10)])
def test_the_default_stop_is_not_above_that_of_scikit_learn(signal, n_features, n_classes):
    x_ND, class_N = made_up(250, n_features, n_classes, signal, seed=1)
    peer = LogisticRegression(class_weight="balanced", max_iter=2000)
    peer.fit(x_ND[:, :-1].astype(np.float32), class_N)
    probe = fit_probe(x_ND[:, :-1], class_N)
    assert probe.converged and probe.gap <= 1e-5
    own = sklearn_objective(*as_sklearn(probe.weight_DK), x_ND, class_N)
    coef_KD, intercept_K = peer.coef_.astype(float), peer.intercept_.astype(float)
    assert own <= sklearn_objective(coef_KD, intercept_K, x_ND, class_N) * (1 + 1e-6)


def test_gradient_is_the_derivative_of_the_objective():
    x_ND, class_N = made_up(60, 3, 3)
    objective = Objective(x_ND, class_N, 3)
    rng = np.random.default_rng(1)
    weight_DK, step_DK = rng.normal(size=(2, 4, 3))
    ahead, behind = (objective.at(weight_DK + h * step_DK).value for h in (1e-5, -1e-5))
    gradient_DK = objective.at(weight_DK).gradient_DK
    assert np.vdot(gradient_DK, step_DK) == pytest.approx((ahead - behind) / 2e-5, rel=1e-6)


def test_value_is_that_of_scikit_learn_and_equal_odds_are_weights_of_zero():
    x_ND, class_N = made_up(60, 3, 3)
    objective = Objective(x_ND, class_N, 3)
    weight_DK = np.random.default_rng(1).normal(size=(4, 3))
    wanted = sklearn_objective(*as_sklearn(weight_DK), x_ND, class_N)
    assert objective.at(weight_DK).value == pytest.approx(wanted, rel=1e-12)
    zero, odds = objective.at(0 * weight_DK), objective.equal_odds()
    assert odds.value == pytest.approx(zero.value, rel=1e-12)
    assert odds.gradient_DK == pytest.approx(zero.gradient_DK, abs=1e-12)
    assert odds.own_N == pytest.approx(zero.own_N, rel=1e-12)


@pytest.mark.parametrize("shift", [200.0, -200.0])
def test_logits_beyond_the_range_of_exponentials_do_no_harm(shift):
    x_ND, class_N = made_up(60, 3, 3)
    objective = Objective(x_ND.astype(np.float32), class_N, 3)
    weight_DK = np.random.default_rng(1).normal(size=(4, 3)).astype(np.float32)
    moved_DK = weight_DK.copy()
    moved_DK[-1] += np.float32(shift)
    here, there = objective.at(weight_DK), objective.at(moved_DK)
    assert there.value == pytest.approx(here.value, rel=1e-4)
    assert there.gradient_DK == pytest.approx(here.gradient_DK, abs=1e-4)


def test_number_of_threads_changes_no_bit(monkeypatch):
    monkeypatch.setattr("phenopipe.probe.solver.PIECE", 32)
    x_ND, class_N = made_up()
    one, three = (
        minimize(x_ND, class_N, 4, max_iter=500, tolerance=1e-5, threads=n) for n in (1, 3)
    )
    assert np.array_equal(one.weight_DK, three.weight_DK)
    assert one.iterations == three.iterations


def test_own_wells_of_a_small_class_enter_its_first_hessian():
    x_ND, class_N = made_up(30, 12, 3)
    objective = Objective(x_ND, class_N, 3)
    own_N = np.random.default_rng(1).uniform(0.1, 0.9, size=30)
    g_DK = np.random.default_rng(2).normal(size=(13, 3))
    share_N = 1 / (3 * np.bincount(class_N))[class_N]
    wrong = share_N @ (1 - own_N)
    q_DK = objective.preconditioner(own_N)(g_DK)
    small_K = np.bincount(class_N) < 13
    assert 0 < small_K.sum() < 3
    for k in range(3):
        own_of_k = small_K[k] & (class_N == k)
        weight_N = share_N * np.where(own_of_k, own_N * (1 - own_N), 0)
        weight_N += share_N * (1 + wrong) / 2 / 3
        hessian_DD = x_ND.T @ (weight_N[:, None] * x_ND) + np.diag(objective.l2_D1[:, 0])
        assert hessian_DD @ q_DK[:, k] == pytest.approx(g_DK[:, k], abs=1e-4)


def test_few_iterations_suffice_where_features_are_correlated():
    x_ND, class_N = made_up(2000, 60, 5, signal=0.1)
    peer = LogisticRegression(class_weight="balanced", max_iter=2000).fit(x_ND[:, :-1], class_N)
    found = minimize(x_ND, class_N, 5, max_iter=2000, tolerance=1e-4)
    assert found.converged and 2 * found.iterations < peer.n_iter_[0]


def test_a_near_start_saves_iterations_and_a_bad_one_is_not_taken():
    x_ND, class_N = made_up()
    cold = minimize(x_ND, class_N, 4, max_iter=500, tolerance=1e-6)
    near_DK = cold.weight_DK + 1e-3
    warm = minimize(x_ND, class_N, 4, max_iter=500, tolerance=1e-6, start_DK=near_DK)
    assert warm.converged and warm.iterations < cold.iterations
    assert warm.objective == pytest.approx(cold.objective, rel=1e-6)
    bad_DK = 100 * np.ones_like(near_DK) * np.arange(4)
    same = minimize(x_ND, class_N, 4, max_iter=500, tolerance=1e-6, start_DK=bad_DK)
    assert same.iterations == cold.iterations


def test_too_few_iterations_are_told():
    x_ND, class_N = made_up()
    short = minimize(x_ND, class_N, 4, max_iter=2, tolerance=1e-6)
    assert not short.converged and short.iterations == 2 and short.gap > 1e-6


def test_constant_features_and_features_in_excess_do_no_harm():
    x_ND, class_N = made_up(40, 100, 3)
    x_ND[:, 7] = 0
    found = minimize(x_ND, class_N, 3, max_iter=2000, tolerance=1e-6)
    assert found.converged and np.abs(found.weight_DK[7]).max() < 1e-8


def test_line_search_meets_the_wolfe_conditions_from_either_side():
    for middle in (0.01, 0.7, 40.0):

        def value(length, middle=middle):
            return (length - middle) ** 2 + 0.1 * (length - middle) ** 4, (
                2 * (length - middle) + 0.4 * (length - middle) ** 3
            )

        start, slope = value(0.0)
        length, there = search_line(value, start, slope)
        assert there < start and abs(value(length)[1]) <= 0.5 * abs(slope)


def test_both_solvers_make_one_probe():
    x_ND, class_N = made_up(400, 20, 6)
    label_N = np.array(list("abcdef"))[class_N]
    ours = fit_probe(x_ND[:300, :-1], label_N[:300], tolerance=1e-7)
    theirs = fit_probe(x_ND[:300, :-1], label_N[:300], solver="sklearn")
    assert ours.classes_K.tolist() == theirs.classes_K.tolist() == list("abcdef")
    assert theirs.converged and theirs.gap is None
    agree = predict(ours, x_ND[:, :-1]) == predict(theirs, x_ND[:, :-1])
    assert agree.mean() > 0.99
    accuracies = [balanced_accuracy(p, x_ND[300:, :-1], label_N[300:]) for p in (ours, theirs)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)


def test_two_classes_of_scikit_learn_keep_their_sides():
    x_ND, class_N = made_up(200, 6, 2, signal=1.5)
    ours = fit_probe(x_ND[:, :-1], class_N, tolerance=1e-7)
    theirs = fit_probe(x_ND[:, :-1], class_N, solver="sklearn")
    assert (predict(ours, x_ND[:, :-1]) == predict(theirs, x_ND[:, :-1])).mean() > 0.99
    assert np.abs(ours.weight_DK - theirs.weight_DK).max() < 0.01
