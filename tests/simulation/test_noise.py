"""The noise: law of the Ornstein-Uhlenbeck process, and the random bits it is made from.

Errors of estimates follow from theory. With He_k the Hermite polynomials, a stationary
Gaussian process z of variance 1 and correlation rho has Cov(He_k(z_s), He_k(z_t)) = k! rho^k.
"""

import math

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats

from ssn_estimators.simulation.cpu import backend
from ssn_estimators.simulation.cpu.noise import LaggedFibonacci, OrnsteinUhlenbeck

TAU = 20.0
LAWS = ("gaussian", "weak")
HERMITE = {
    1: lambda z: z,
    2: lambda z: z**2 - 1,
    3: lambda z: z**3 - 3 * z,
    4: lambda z: z**4 - 6 * z**2 + 3,
}
STEP = 1e3 * TAU  # so long that values are the increments themselves


@pytest.fixture(params=["compiled", "plain"], autouse=True)
def loops(request, monkeypatch):
    """Processes are made by the loops of Numba, and by those that do without."""
    if request.param == "plain":
        monkeypatch.setattr(backend, "compiled", None)
    elif backend.compiled is None:
        pytest.skip("Numba is not installed")


def process(shape, dt=1.0, increments="gaussian", seed=(1, 0, 0), dtype=torch.float64):
    return OrnsteinUhlenbeck(shape, dt, TAU, seed, increments, dtype)


def path_of(ou, n_steps):
    """Values before, between and after steps, shape (n_steps + 1, *shape)."""
    return np.asarray(ou.advance(n_steps))


def fill(ou, values, dtype):
    """Have the generator return these integers next."""
    ou.generator.table.view(-1).view(dtype)[: len(values)] = torch.tensor(values, dtype=dtype)
    ou.generator.n_read[:] = 0


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [0.2, 1.0, 4.0, 30.0])
@pytest.mark.parametrize("increments", LAWS)
def test_process_is_stationary_and_forgets_exponentially(increments, dt, dtype):
    n, n_steps = 60_000, 40
    z = path_of(process((n,), dt, increments, dtype=dtype), n_steps).astype(float)
    # of the first value, or one in the middle, with later ones
    for first in (0, 17):
        later = np.arange(n_steps + 1 - first)
        correlation = np.exp(-later * dt / TAU)
        found = (z[first] * z[first:]).mean(1)
        assert (np.abs(found - correlation) < 4.5 * np.sqrt((1 + correlation**2) / n)).all()
    assert (np.abs(z.mean(1)) < 4.5 / np.sqrt(n)).all()


@pytest.mark.parametrize("dt", [1.0, 10.0, 60.0])
@pytest.mark.parametrize("increments", LAWS)
def test_moments_up_to_the_fourth(increments, dt):
    n, n_steps = 40_000, 40
    z = path_of(process((n,), dt, increments), n_steps)[1:]
    decay = math.exp(-dt / TAU)
    steps = np.arange(1, n_steps + 1)
    # fourth cumulant of a sum of independent terms, of which the normal start has none
    kick, excess = 1 - decay**2, 0.0 if increments == "gaussian" else 128 / 42 - 3
    cumulant = excess * kick**2 * (1 - decay ** (4 * steps)) / (1 - decay**4)
    expected = {1: 0, 2: 0, 3: 0, 4: cumulant.mean()}
    correlation = decay ** np.abs(steps[:, None] - steps)
    for k, hermite in HERMITE.items():
        error = math.sqrt(math.factorial(k) * (correlation**k).mean() / n)
        assert abs(hermite(z).mean() - expected[k]) < 4 * error
    if increments == "weak" and dt == 60.0:
        assert expected[4] > 8 * error  # what would be seen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("dt", [1.0, STEP])
def test_gaussian_process_is_normal(dt, dtype):
    z = path_of(process((200_000,), dt, dtype=dtype), 2)
    for values in z:  # the start, and after each step
        assert stats.kstest(values, "norm").pvalue > 1e-3


def test_weak_process_starts_normal():
    start = path_of(process((200_000,), 1.0, "weak"), 0)[0]
    assert stats.kstest(start, "norm").pvalue > 1e-3


def test_weak_increments_have_the_moments_of_normal_ones():
    ou = process((256,), STEP, "weak")
    fill(ou, range(-128, 128), torch.int8)  # every byte once
    z = np.asarray(ou.advance(1)[1])
    height = math.sqrt(256 / 84)
    values, counts = np.unique(z, return_counts=True)
    assert_allclose(values, [-height, 0, height], atol=1e-14)
    assert_array_equal(counts, [42, 172, 42])
    moments = [(z**k).mean() for k in range(1, 5)]
    assert_allclose(moments, [0, 1, 0, 64 / 21], atol=1e-14)  # kurtosis 3.05


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_integer_makes_an_infinity(dtype):
    ou = process((8,), STEP, dtype=dtype)
    extremes = [-(2**31), -(2**31) + 1, -(2**31) + 64, -1, 0, 1, 2**31 - 65, 2**31 - 1]
    fill(ou, extremes, torch.int32)
    z = np.asarray(ou.advance(1)[1])
    assert (np.diff(z) >= 0).all()
    assert z[0] == pytest.approx(-z[-1], rel=1e-3)
    assert 5 < z[-1] < 6
    assert z[4] == 0


@pytest.mark.parametrize("shape", [(3, 2), (50, 40), (700, 300)])
@pytest.mark.parametrize("increments", LAWS)
def test_process_does_not_depend_on_how_many_steps_are_taken_at_a_time(increments, shape):
    n_steps = 16
    expected = path_of(process(shape, 3.0, increments), 2 * n_steps)
    for sizes in ([1] * 2 * n_steps, [1, n_steps, n_steps - 1], [n_steps - 1, 2, n_steps - 1]):
        ou = process(shape, 3.0, increments)
        done = 0
        for size in sizes:
            path = ou.advance(size)
            assert path.shape == (size + 1, *shape)
            assert_allclose(path, expected[done : done + size + 1], rtol=0, atol=1e-13)
            done += size
        assert done == 2 * n_steps


@pytest.mark.parametrize("n_steps", [1, 7, 60])
@pytest.mark.parametrize("increments", LAWS)
def test_restored_process_goes_on_bit_for_bit(increments, n_steps):
    ou = process((5, 40), 1.0, increments)
    path_of(ou, n_steps)
    state = ou.state()
    expected = path_of(ou, 70)  # numbers of several tables
    ou.restore(state)
    assert_array_equal(path_of(ou, 70), expected)
    other = process((5, 40), 1.0, increments, seed=(2,))
    other.restore(state)
    assert_array_equal(path_of(other, 70), expected)


def increments_of(shape, increments, n_steps, seed=(1, 0, 0)):
    """Independent numbers in the order in which they were made, one row a step."""
    return path_of(process(shape, STEP, increments, seed), n_steps)[1:].reshape(n_steps, -1)


@pytest.mark.parametrize("increments", LAWS)
def test_cells_and_columns_are_uncorrelated(increments):
    n_steps = 6000
    z = increments_of((4, 30), increments, n_steps)
    for x, variance in ((z, 1), (z**2 - 1, (z**4).mean() - 1)):
        correlation = np.triu(x.T @ x, 1) / (n_steps * variance)
        assert np.abs(correlation).max() < 5.5 / np.sqrt(n_steps)  # of 7140
        assert correlation.std() * np.sqrt(2) == pytest.approx(1 / np.sqrt(n_steps), rel=0.05)


@pytest.mark.parametrize("dt", [0.2, 5.0])
@pytest.mark.parametrize("increments", LAWS)
def test_increments_of_consecutive_steps_are_uncorrelated(increments, dt):
    z = path_of(process((20, 500), dt, increments), 64)
    decay = math.exp(-dt / TAU)
    xi = (z[1:] - decay * z[:-1]) / math.sqrt(1 - decay**2)
    assert xi.var() == pytest.approx(1, abs=4 * math.sqrt(2.05 / xi.size))
    for lag in (1, 2, 3, 8, 15, 16, 17, 32):
        product = xi[lag:] * xi[:-lag]
        assert abs(product.mean()) < 4 / np.sqrt(product.size)
    # nor with what was before them
    assert np.abs((xi * z[:-1]).mean((1, 2))).max() < 4.5 / np.sqrt(z[0].size)


@pytest.mark.parametrize("n", [60, 6000], ids=["one lane", "all lanes"])
@pytest.mark.parametrize("increments", LAWS)
def test_numbers_are_uncorrelated_at_the_lags_of_the_generator(increments, n):
    z = increments_of((n,), increments, 1_200_000 // n).ravel()
    ou = process((n,), STEP, increments)
    lanes = ou.generator.table.shape[1]
    assert (lanes == 1) == (n == 60)
    numbers = 4 if increments == "weak" else 1  # in a word
    short, long = LaggedFibonacci.SHORT, LaggedFibonacci.LONG
    rows = [m * x for x in (short, long) for m in (1, 2, 3)]
    rows += [long - short, long + short, 2 * long - short]
    lags = [row * lanes * numbers for row in rows] + list(range(1, 9)) + [lanes, lanes * numbers]
    variance = (z**4).mean() - 1
    for lag in lags:
        x, y = z[lag:], z[:-lag]
        limit = 4.2 / np.sqrt(len(x))  # of hundreds in all
        assert abs((x * y).mean()) < limit
        assert abs(((x**2 - 1) * (y**2 - 1)).mean()) < limit * variance
        assert abs((x * (y**2 - 1)).mean()) < limit * math.sqrt(variance)


@pytest.mark.parametrize("increments", LAWS)
def test_products_of_three_numbers_of_the_recurrence_average_out(increments):
    z = increments_of((60,), increments, 50_000).ravel()
    words = 4 if increments == "weak" else 1
    short, long = 418 * words, 1279 * words
    product = z[long:] * z[long - short : -short] * z[:-long]
    assert abs(product.mean()) < 4.5 / np.sqrt(len(product))


@pytest.mark.parametrize("increments", LAWS)
def test_seeds_give_independent_noise(increments):
    seeds = [(0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (2**31 - 2,)]
    z = np.stack([increments_of((50,), increments, 4000, seed).ravel() for seed in seeds])
    correlation = z @ z.T / z.shape[1]
    assert np.abs(np.triu(correlation, 1)).max() < 4.5 / np.sqrt(z.shape[1])
    assert_array_equal(increments_of((50,), increments, 9), z[1].reshape(-1, 50)[:9])


@pytest.mark.parametrize(("n_words", "lanes"), [(1, 1), (1279, 1), (1280, 2), (10**6, 8)])
def test_generator_follows_its_recurrence(n_words, lanes):
    generator = LaggedFibonacci(n_words, (1, 2))
    rows = (generator.table.numpy().view(np.uint32)).tolist()
    for _ in range(3000):
        rows.append([(x + y) % 2**32 for x, y in zip(rows[-1279], rows[-418], strict=True)])
    expected = np.array(rows[1279:]).ravel()
    assert len(rows[0]) == lanes
    read, start = torch.empty(len(expected), dtype=torch.int64), 0
    for size in (1, 5, 1278, 1279 * lanes, len(expected) - 1279 * lanes - 1284):
        generator.read(read[start : start + size], torch.int32)
        start += size
    assert start == len(read)
    assert_array_equal(read.numpy() % 2**32, expected)


def test_bytes_are_those_of_the_words():
    words, octets = torch.empty(9000, dtype=torch.int32), torch.empty(36000, dtype=torch.int8)
    LaggedFibonacci(2000, (1,)).read(words, torch.int32)
    generator = LaggedFibonacci(2000, (1,))
    for part in octets.split(7001):  # not whole words
        generator.read(part, torch.int8)
    assert_array_equal(octets, words.view(torch.int8))


@pytest.mark.parametrize("n_words", [1000, 10**6], ids=["one lane", "all lanes"])
def test_bits_are_balanced_and_bytes_uniform(n_words):
    words = torch.empty(2**19, dtype=torch.int32)
    LaggedFibonacci(n_words, (5,)).read(words, torch.int32)
    octets = words.numpy().view(np.uint8).reshape(-1, 4)
    bits = np.unpackbits(octets, axis=1)
    assert np.abs(bits.mean(0) - 0.5).max() < 4 * 0.5 / np.sqrt(len(bits))
    # neither pairs of bits of a word nor of consecutive words go together
    spin = 2.0 * bits - 1
    for other in (spin, np.roll(spin, 1, axis=0)):
        together = spin.T @ other / len(spin)
        if other is spin:
            np.fill_diagonal(together, 0)
        assert np.abs(together).max() < 5 / np.sqrt(len(spin))  # of 1024
    for position in octets.T:
        assert stats.chisquare(np.bincount(position, minlength=256)).pvalue > 1e-3
    pairs = np.bincount(octets[:, 0].astype(int) * 256 + octets[:, 3], minlength=2**16)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_seeds_fill_different_tables():
    # of one length, as SeedSequence takes no notice of zeros at the end
    seeds = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)]
    tables = [LaggedFibonacci(10**5, seed).table for seed in seeds]
    for i, table in enumerate(tables):
        for other in tables[:i]:
            assert (table == other).float().mean() < 1e-3
    assert torch.equal(LaggedFibonacci(10**5, seeds[2]).table, tables[2])


@pytest.mark.parametrize("increments", LAWS)
def test_compiled_and_plain_noise_is_the_same(increments, monkeypatch):
    if backend.compiled is None:
        pytest.skip("nothing to compare with")
    made = []
    for compiled in (backend.compiled, None):
        monkeypatch.setattr(backend, "compiled", compiled)
        made.append(path_of(process((7, 301), 1.0, increments, dtype=torch.float32), 200))
    assert_allclose(*made, rtol=0, atol=3e-6)


def test_inversion_is_as_accurate_as_single_precision():
    ou = process((2**17,), STEP)
    words = torch.linspace(-(2**31), 2**31 - 1, 2**17, dtype=torch.float64).to(torch.int32)
    size = ou.generator.table.numel()
    found = []
    for part in words.split(size):
        fill(ou, part.tolist(), torch.int32)
        found.append(np.asarray(ou.advance(1)[1][: len(part)]))
    found = np.concatenate(found)
    exact = stats.norm.ppf(0.5 + words.numpy() * (1 - 2**-24) * 2.0**-32)
    inside = np.abs(exact) < 4  # beyond, the rounding of the uniform number shows
    assert_allclose(found[inside], exact[inside], rtol=3e-5, atol=1e-7)
