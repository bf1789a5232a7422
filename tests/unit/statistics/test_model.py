"""The model of what varies: cases computed by hand, other implementations, and simulations."""

import numpy as np
import pytest
from scipy import special
from scipy import stats as reference

from bench.statistics import intervals, model
from bench.statistics.model import NO_SPREAD, Kind, Seeds, Spread

EVIDENCE = {"a": (0.5, 3), "b": (1.0, 2), "c": (2.5, 4), "d": (0.8, 1)}  # sd, degrees
TAILS = [0.025, 0.25, 0.5, 0.75, 0.975]


def kind(rows):
    """Rows by their sd and degrees of freedom."""
    return Kind({name: Seeds(sd**2, degrees) for name, (sd, degrees) in rows.items()})


def of(values):
    """What is known of a row's runs by its own seeds alone."""
    return Kind({"row": Seeds.of(values)}).spread("row")


def flat(values, count):
    """Scores on resamples of images that change nothing."""
    return np.repeat(np.asarray(values, dtype=float)[:, None], count, axis=1)


def samples(values, resampled, seed=0):
    """Samples of a row by its own seeds alone, as the leaderboard draws them."""
    share = model.interaction(resampled)
    return model.samples(values, resampled, of(values), share or 0.0, seed)


def sd_quantiles(spread, probabilities):
    """Quantiles of the posterior of sigma, between the points of the grid."""
    middles = np.cumsum(spread.weights) - spread.weights / 2
    return np.exp(np.interp(probabilities, middles, np.log(spread.sds)))


@pytest.fixture
def one_law(monkeypatch):
    """All rows have one standard deviation: w is 0."""
    monkeypatch.setattr(model, "WIDEST", 1e-3)


# By hand


def test_seeds_have_the_variance_of_their_values():
    assert Seeds.of([40.0]) is None
    assert Seeds.of([39.0, 41.0]) == Seeds(2.0, 1)
    assert Seeds.of([39.0, 40.0, 41.0]) == Seeds(1.0, 2)


def test_seeds_that_tie_have_the_least_variance():
    assert Seeds.of([40.0, 40.0]) == Seeds(model.LEAST**2, 1)


def test_a_spread_of_two_standard_deviations_is_a_mixture_of_two_normal_laws():
    spread = Spread(np.array([1.0, 3.0]), np.array([0.5, 0.5]))
    x = np.array([-2.0, 0.0, 1.5])
    expected = (reference.norm.cdf(x) + reference.norm.cdf(x / 3)) / 2
    np.testing.assert_allclose(spread.cdf(x), expected)
    np.testing.assert_allclose(spread.cdf(x / 2, seeds=4), expected)


def test_one_standard_deviation_gives_the_quantiles_of_the_normal_law():
    spread = Spread(np.array([2.0]), np.ones(1))
    np.testing.assert_allclose(
        spread.quantiles(TAILS), 2 * reference.norm.ppf(TAILS), rtol=1e-3, atol=1e-9
    )


def test_quantiles_and_cdf_are_inverse_and_symmetric():
    spread = kind(EVIDENCE).spread("one seed")
    p = np.linspace(0.01, 0.99, 99)
    np.testing.assert_allclose(spread.cdf(spread.quantiles(p, 3), 3), p, atol=1e-3)
    np.testing.assert_allclose(spread.quantiles(p), -spread.quantiles(1 - p), atol=1e-9)


def test_k_seeds_shrink_by_the_root_of_k():
    spread = kind(EVIDENCE).spread("a")
    np.testing.assert_allclose(spread.quantiles(TAILS, 4), spread.quantiles(TAILS) / 2, rtol=2e-3)


def test_the_variance_of_a_spread_is_the_square_of_its_median():
    spread = Spread(np.array([1.0, 2.0, 9.0]), np.array([0.25, 0.5, 0.25]))
    assert spread.variance == pytest.approx(4)


def test_fixed_weights_do_not_vary():
    assert not NO_SPREAD.varies and NO_SPREAD.variance == 0
    np.testing.assert_array_equal(NO_SPREAD.quantiles(TAILS), np.zeros(5))
    np.testing.assert_array_equal(NO_SPREAD.cdf([-1.0, 0.0, 1.0]), [0, 1, 1])


def test_two_seeds_that_tie_by_chance_are_told_of_by_rows_whose_seeds_differ():
    rows = {str(i): Seeds(0.25, 4) for i in range(4)}
    tied = Kind(rows | {"tied": Seeds.of([34.5, 34.5])}).spread("tied")
    near = Kind(rows | {"near": Seeds.of([34.5, 34.6])}).spread("near")
    assert 0.3 < tied.variance**0.5 < near.variance**0.5 < 0.6


def test_no_row_tells_nothing():
    assert Kind({}).spread("one seed") is None


@pytest.mark.parametrize("degrees", [2, 4, 10])
def test_a_row_alone_has_the_interval_of_students_t(degrees):
    """The logarithm of sigma is flat a priori, whatever w is."""
    spread = kind({"row": (1.7, degrees)}).spread("row")
    expected = 1.7 * reference.t.ppf([0.9, 0.975], degrees)
    np.testing.assert_allclose(spread.quantiles([0.9, 0.975]), expected, rtol=0.02)


@pytest.mark.parametrize("degrees", [3, 8, 60])
def test_under_one_law_a_row_of_one_seed_has_the_t_of_all_degrees(one_law, degrees):
    """Two rows of equal spread are one of twice the degrees; the grid adds up to 3%."""
    spread = kind({"a": (0.8, degrees), "b": (0.8, degrees)}).spread("one seed")
    expected = 0.8 * reference.t.ppf(0.975, 2 * degrees)
    assert spread.quantiles([0.975])[0] == pytest.approx(expected, rel=0.03)


def test_under_one_law_and_many_degrees_a_row_of_one_seed_is_normal(one_law):
    spread = kind({"a": (0.8, 5000)}).spread("one seed")
    np.testing.assert_allclose(
        spread.quantiles([0.9, 0.975]), 0.8 * reference.norm.ppf([0.9, 0.975]), rtol=0.03
    )


def test_all_scores_times_c_have_standard_deviations_times_c():
    one = kind(EVIDENCE)
    other = kind({name: (7 * sd, degrees) for name, (sd, degrees) in EVIDENCE.items()})
    for name in ("a", "d", "one seed"):
        np.testing.assert_allclose(other.spread(name).sds, 7 * one.spread(name).sds)
        np.testing.assert_allclose(other.spread(name).weights, one.spread(name).weights)


def test_a_row_of_many_seeds_has_its_own_spread():
    rows = kind({"a": (0.5, 200), "b": (3.0, 200), "c": (1.0, 2)})
    assert rows.spread("a").variance == pytest.approx(0.25, rel=0.1)
    assert rows.spread("b").variance == pytest.approx(9.0, rel=0.1)


def test_a_row_moves_towards_its_own_spread_with_its_degrees():
    others = {"b": (1.0, 10), "c": (1.1, 10), "d": (0.9, 10)}
    variances = [kind(others | {"a": (4.0, d)}).spread("a").variance for d in (1, 4, 16, 64)]
    assert 1 < variances[0] < variances[1] < variances[2] < variances[3] < 16
    below = [kind(others | {"a": (0.25, d)}).spread("a").variance for d in (1, 4, 16, 64)]
    assert 1 > below[0] > below[1] > below[2] > below[3] > 1 / 16


def test_two_equal_rows_of_many_seeds_center_a_third_on_theirs():
    rows = kind({"a": (2.0, 300), "b": (2.0, 300)})
    assert rows.spread("a").variance == pytest.approx(4, rel=0.1)
    third = rows.spread("one seed")
    assert third.variance == pytest.approx(4, rel=0.02)
    assert third.quantiles([0.975])[0] > rows.spread("a").quantiles([0.975])[0]


def test_rows_that_differ_more_leave_a_row_of_one_seed_more_open():
    ratios = []
    for factor in (1.0, 3.0, 9.0):
        rows = kind({str(i): (factor ** ((i % 3) - 1), 20) for i in range(6)})
        low, high = sd_quantiles(rows.spread("one seed"), [0.1, 0.9])
        ratios.append(high / low)
    assert ratios[0] < ratios[1] < ratios[2]


def test_the_share_of_the_seeds_own_part_is_that_of_its_variance():
    """Columns of a Hadamard matrix are orthogonal: 3 parts in common, 1 of each seed's own."""
    common = np.array([1.0, 1.0, -1.0, -1.0])
    first = np.array([1.0, -1.0, 1.0, -1.0])
    second = np.array([1.0, -1.0, -1.0, 1.0])
    scores = 40 + np.sqrt(3) * common + np.stack([first, second])
    assert model.interaction(scores) == pytest.approx(1 / 4)
    assert model.interaction(np.stack([first, second])) == pytest.approx(1)
    assert model.interaction(np.stack([common, common + 2])) == pytest.approx(0)
    assert model.interaction(scores[:1]) is None
    assert model.interaction(flat([40.0, 41.0], 4)) is None


def test_a_share_above_one_is_one():
    assert model.interaction([[1.0, -1.0], [-1.0, 1.0]]) == 1


# Against other implementations


def importance_sampled(rows, name, count=1_500_000):
    """Quantiles of a row's sigma by draws from the prior, weighted by the likelihood."""
    rng = np.random.default_rng(0)
    unit = np.log(sum(d * s**2 for s, d in rows.values()) / sum(d for _, d in rows.values())) / 2
    m = unit + rng.uniform(-4, 4, size=count)
    w = np.abs(rng.normal(0, model.WIDEST, size=count))
    log_sigma = {each: m + w * rng.normal(size=count) for each in {**rows, name: None}}
    log_weight = np.zeros(count)
    for each, (sd, degrees) in rows.items():
        sigma = np.exp(log_sigma[each])
        chi2 = degrees * sd**2 / sigma**2
        log_weight += reference.chi2.logpdf(chi2, degrees) + np.log(degrees / sigma**2)
    weight = np.exp(log_weight - log_weight.max())
    order = np.argsort(log_sigma[name])
    cumulated = np.cumsum(weight[order]) / weight.sum()
    return np.exp(log_sigma[name][order][np.searchsorted(cumulated, TAILS)])


@pytest.mark.parametrize("name", ["a", "c", "d", "one seed"])
def test_the_grid_agrees_with_brute_force(name):
    expected = importance_sampled(EVIDENCE, name)
    np.testing.assert_allclose(
        sd_quantiles(kind(EVIDENCE).spread(name), TAILS), expected, rtol=0.06
    )


def inverse_trigamma(y):
    x = 0.5 + 1 / y
    for _ in range(50):
        x += special.polygamma(1, x) * (1 - special.polygamma(1, x) / y) / special.polygamma(2, x)
    return x


def smyth(variances, degrees):
    """Smyth 2004, section 6.2: prior variance and its degrees, by moments of log s^2."""
    e = np.log(variances) - special.digamma(degrees / 2) + np.log(degrees / 2)
    excess = e.var(ddof=1) - special.polygamma(1, degrees / 2)
    d0 = 2 * inverse_trigamma(excess) if excess > 0 else 1e6
    return np.exp(e.mean() + special.digamma(d0 / 2) - np.log(d0 / 2)), d0


@pytest.mark.parametrize("unlike", [0.0, 0.2])
def test_rows_that_are_alike_have_smyths_moderated_variances(unlike):
    """Half the width of a row's interval within 15% on average over 30 tables of 12 x 5."""
    rng = np.random.default_rng(int(10 * unlike))
    ratios = []
    for _ in range(30):
        sigma = np.exp(unlike * rng.normal(size=12))
        variances = sigma**2 * rng.chisquare(4, size=12) / 4
        rows = Kind({str(i): Seeds(v, 4) for i, v in enumerate(variances)})
        s0, d0 = smyth(variances, 4.0)
        moderated = np.sqrt((d0 * s0 + 4 * variances) / (d0 + 4)) * reference.t.ppf(0.975, d0 + 4)
        widths = [rows.spread(str(i)).quantiles([0.975])[0] for i in range(12)]
        ratios.append(np.array(widths) / moderated)
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)
    assert np.mean(np.abs(np.log(ratios))) < 0.15


def test_the_pooled_variance_is_that_of_an_analysis_of_variance(one_law):
    """Balanced rows x seeds: the mean square within rows, of rows x (seeds - 1) degrees."""
    values = np.random.default_rng(0).normal(0, 0.7, size=(6, 4)) + np.arange(6)[:, None]
    between = 4 * values.mean(axis=1).var(ddof=1)
    within = between / reference.f_oneway(*values).statistic
    degrees = 6 * 3
    median = within * degrees / reference.chi2.median(degrees)
    spread = Kind({str(i): Seeds.of(row) for i, row in enumerate(values)}).spread("one seed")
    assert spread.variance == pytest.approx(median, rel=0.02)


# Samples of a row


def test_one_seed_whose_spread_is_not_known_leaves_the_images_alone():
    resampled = np.random.default_rng(0).normal(size=(1, 500))
    drawn = model.samples([40.0], resampled, NO_SPREAD, 0.0, seed=0)
    assert drawn.mean() == pytest.approx(40)
    np.testing.assert_allclose(drawn - drawn.mean(), resampled[0] - resampled[0].mean())


def test_the_mean_of_samples_is_the_value():
    rng = np.random.default_rng(0)
    resampled = 30 + rng.gamma(2.0, size=(3, 1001))
    resampled[:, 5] = np.nan
    drawn = model.samples([40.0, 41.0, 45.0], resampled, of([40.0, 41.0, 45.0]), 0.3, seed=1)
    assert np.isnan(drawn[5])
    assert np.nanmean(drawn) == pytest.approx(42)


def test_seeds_alone_give_the_interval_of_students_t():
    values = np.array([40.0, 41.0, 43.5])
    expected = reference.t.interval(0.95, 2, values.mean(), reference.sem(values))
    found = intervals.interval(samples(values, flat(values, 4000)), values.mean())
    assert found == pytest.approx(expected, rel=0.01)


def test_seeds_that_differ_widen_the_interval():
    rng = np.random.default_rng(0)
    resampled = np.array([[39.5], [40.5]]) + rng.normal(0, 0.3, size=2000)
    values = np.array([39.5, 40.5])
    alone = model.samples(values, resampled, NO_SPREAD, 0.0, seed=0)
    assert np.ptp(intervals.interval(samples(values, resampled), 40)) > 3 * np.ptp(
        intervals.interval(alone, 40)
    )


def test_a_borrowed_spread_widens_one_seed():
    resampled = np.random.default_rng(0).normal(size=(1, 20_000))
    spread = Spread(np.array([2.0]), np.ones(1))
    drawn = model.samples([40.0], resampled, spread, 0.0, seed=0)
    assert drawn.std() == pytest.approx(np.sqrt(1 + 4), rel=0.02)
    shared = model.samples([40.0], resampled, spread, 0.5, seed=0)
    assert shared.std() == pytest.approx(np.sqrt(0.5 + 4), rel=0.02)


def test_what_the_images_do_to_single_seeds_does_not_count_twice():
    """Here they do nothing else: the spread of the seeds holds all of it."""
    rng = np.random.default_rng(0)
    values, own = np.array([34.0, 40.0, 46.0]), rng.normal(0, 5, size=(3, 20_000))
    drawn = samples(values, values[:, None] + own)
    expected = reference.t.interval(0.95, 2, 40, reference.sem(values))
    assert intervals.interval(drawn, 40) == pytest.approx(expected, rel=0.02)


def test_seeds_that_agree_by_chance_do_not_narrow_the_interval():
    rng = np.random.default_rng(0)
    values, own = np.array([39.9, 40.0, 40.1]), rng.normal(0, 5, size=(3, 20_000))
    alone = model.samples(values, values[:, None] + own, NO_SPREAD, 0.0, seed=0)
    drawn = samples(values, values[:, None] + own)
    assert drawn.std() == pytest.approx(alone.std(), rel=0.02)


def test_images_common_to_all_seeds_do_not_shrink():
    shared = np.random.default_rng(0).normal(0, 2, size=5000)
    for count in (2, 5):
        values = np.full(count, 40.0)
        drawn = model.samples(values, values[:, None] + shared, NO_SPREAD, 0.0, seed=0)
        np.testing.assert_allclose(drawn, 40 + shared - shared.mean())


def test_images_and_seeds_add_up():
    rng = np.random.default_rng(0)
    values, shared = np.array([36.0, 40.0, 41.0, 44.0]), rng.normal(0, 2, size=5000)
    drawn = samples(values, values[:, None] + shared)
    spread = np.sqrt(2**2 + values.var(ddof=1) / 4 * 3)  # t with 3 degrees: variance 3
    assert drawn.mean() == pytest.approx(40.25)
    assert drawn.std() == pytest.approx(spread, rel=0.1)


def test_runs_of_two_rows_are_independent_and_repeatable():
    values = np.array([30.0, 40.0, 50.0])
    one, again, other = (
        samples(values, flat(values, 1000), seed) for seed in ([0, 1], [0, 1], [0, 2])
    )
    np.testing.assert_array_equal(one, again)
    ranks = one.argsort().argsort(), other.argsort().argsort()
    assert abs(np.corrcoef(*ranks)[0, 1]) < 0.15


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("spread", [0.0, 0.5, 3.0])
def test_intervals_over_seeds_hold_what_is_true(count, spread):
    rng = np.random.default_rng([count, int(10 * spread)])
    held = []
    for number in range(400):
        truth = spread * rng.normal(size=count)
        images, own = rng.normal(), 0.7 * rng.normal(size=count)
        drawn = rng.normal(size=600) + 0.7 * rng.normal(size=(count, 600))
        values = 40 + truth + images + own
        low, high = intervals.interval(
            samples(values, values[:, None] + drawn, [number]), values.mean()
        )
        held.append(low <= 40 <= high)
    assert 0.92 <= np.mean(held) <= 0.999


def test_one_seed_holds_what_is_true_beside_rows_of_several():
    """Six rows of three seeds tell of a seventh of one; their sds differ by a spread of 0.6."""
    rng = np.random.default_rng(0)
    held = []
    images_held = []
    for number in range(300):
        sigma = np.exp(0.6 * rng.normal(size=7))
        rows = {str(i): Seeds.of(sigma[i] * rng.normal(size=3)) for i in range(6)}
        resampled = 0.5 * rng.normal(size=(1, 600))
        value = 40 + 0.5 * rng.normal() + sigma[6] * rng.normal()
        for spread, into in ((Kind(rows).spread("one"), held), (NO_SPREAD, images_held)):
            drawn = model.samples([value], value + resampled, spread, 0.0, [number])
            low, high = intervals.interval(drawn, value)
            into.append(low <= 40 <= high)
    assert 0.92 <= np.mean(held) <= 0.99
    assert np.mean(images_held) < 0.8
