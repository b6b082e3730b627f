"""The ring benchmark of probabilistic inference and its network; tasks for other networks."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy.integrate import solve_ivp
from sklearn.utils import Bunch, check_random_state

from ssn_estimators.circuit import gaussian_ring

__all__ = [
    "make_contextual_decision",
    "make_cued_sinusoids",
    "make_delayed_match",
    "make_evidence_integration",
    "make_ring_gsm",
    "make_ring_network",
    "make_robertson",
    "make_spiral",
    "make_two_alternatives",
    "make_working_memory",
]

N_LATENTS = 50
N_PIXELS = 16  # along each side of the image
CONTRASTS = (0.0, 0.125, 0.25, 0.5, 1.0)
PIXEL_NOISE = 10.0  # standard deviation sigma_x of a pixel
INPUT_SCALE = 1 / 15
CUE_CORRELATION = 20.0  # ms
TASK_STEPS = 8  # of 100 ms, of the decision tasks
CHANNEL_NOISE = 0.1  # standard deviation in a step
NODES = np.linspace(-4, 4, 201)  # of the quadrature, in standard deviations

DESCR = """\
Ring benchmark of probabilistic inference
-----------------------------------------

An image x of 16 x 16 pixels comes from a Gaussian scale mixture,

    x = z A y + noise,   y ~ N(0, C),   noise ~ N(0, sigma_x^2 I),   sigma_x = 10,

where the 50 columns of A are Gabor filters whose orientations fill a half circle, C is
circulant, and z is the contrast. The five stimuli are x = z A y for one pattern y centred on
filter 25 and five contrasts z, without noise. A network gets A^T x / 15 as input to both
populations; its excitatory potentials are to have the mean and the covariance that the
posterior of y given x and z has after the latents have been mapped to potentials (mV) by
2.4 [y + 1.8754]_+^0.6.

Source: Echeveste, Aitchison, Hennequin & Lengyel (2020). Cortical-like dynamics in recurrent
circuits optimized for sampling-based probabilistic inference. Nature Neuroscience 23,
1138-1149. The numbers are computed from the formulas.
"""


def make_ring_gsm():
    r"""Ring benchmark: posterior moments that a network of 50 + 50 cells is to reproduce.

    The five stimuli differ in contrast only. The targets are the moments of the potentials
    :math:`u = 2.4 \lfloor y + 1.8754 \rfloor_+^{0.6}` (mV) when y follows the posterior of a
    Gaussian scale mixture given the stimulus and its contrast [1]_, by quadrature on 201
    nodes within four standard deviations. [2]_ sets the benchmark to networks grown cell by
    cell.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With these attributes, all arrays float64:

        A : ndarray of shape (256, 50)
            Gabor filters of unit norm as columns; a filter reshaped to (16, 16) is an image.
        C : ndarray of shape (50, 50)
            Prior covariance of the latents, circulant.
        y : ndarray of shape (50,)
            The latents behind all stimuli.
        x : ndarray of shape (5, 256)
            The stimuli.
        h : ndarray of shape (5, 100)
            External inputs, for 50 excitatory and then 50 inhibitory cells; the input
            function of a circuit maps them to mV.
        mu : ndarray of shape (5, 50)
            Target means of the excitatory potentials, in mV.
        sigma : ndarray of shape (5, 50, 50)
            Target covariances of the excitatory potentials, in mV**2.
        z : ndarray of shape (5,)
            Contrasts of the stimuli: 0, 0.125, 0.25, 0.5 and 1.
        DESCR : str
            Description and source.

    References
    ----------
    .. [1] Echeveste, Aitchison, Hennequin & Lengyel (2020). Nature Neuroscience 23,
       1138-1149.
    .. [2] Soo & Lengyel (2022). Training stochastic stabilized supralinear networks by
       dynamics-neutral growth. NeurIPS 35. Section 4.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_ring_gsm
    >>> ring = make_ring_gsm()
    >>> ring.h.shape, ring.sigma.shape
    ((5, 100), (5, 50, 50))
    """
    filters, prior = _gabor_filters(), _prior_covariance()
    latents = 6 * np.exp(-(((np.arange(N_LATENTS) - 25) / 7.5) ** 2) / 2)
    contrasts = np.array(CONTRASTS)
    stimuli = contrasts[:, None] * (filters @ latents)
    inputs = INPUT_SCALE * stimuli @ filters
    moments = [
        _transformed_moments(*_posterior(filters, prior, stimulus, contrast), _potential)
        for stimulus, contrast in zip(stimuli, contrasts, strict=True)
    ]
    means, covariances = (np.array(each) for each in zip(*moments, strict=True))
    return Bunch(
        A=filters,
        C=prior,
        y=latents,
        x=stimuli,
        h=np.hstack([inputs, inputs]),
        mu=means,
        sigma=covariances,
        z=contrasts,
        DESCR=DESCR,
    )


def make_ring_network():
    """The network that was optimised for :func:`make_ring_gsm` when that was published.

    Its 15 numbers are those of [1]_, found with Euler's scheme at a step of 0.2 ms.

    Returns
    -------
    circuit : Circuit
        50 excitatory and 50 inhibitory cells.

    References
    ----------
    .. [1] Echeveste, Aitchison, Hennequin & Lengyel (2020). Nature Neuroscience 23,
       1138-1149, and its public code.

    Examples
    --------
    >>> from ssn_estimators.datasets import make_ring_network
    >>> make_ring_network().n_neurons
    100
    """
    return gaussian_ring(
        N_LATENTS,
        amplitudes=[[0.33109, 0.08131], [0.36321, 0.07360]],
        widths=[[0.80276, 0.56873], [0.85983, 0.62980]],
        noise_variances=(6.39919, 3.53351),
        noise_correlation=0.99285,
        noise_width=0.47795,
        theta=(1.95552, 0.10323, 2.03427),
    )


def _gabor_filters():
    """Filters of unit norm as columns, of evenly spaced orientations."""
    side = np.linspace(-3, 3, N_PIXELS)
    horizontal, vertical = (axis.reshape(-1, 1) for axis in np.meshgrid(side, side))
    orientation = np.pi * np.arange(N_LATENTS) / N_LATENTS
    cosine, sine = np.cos(orientation), np.sin(orientation)
    across = horizontal * cosine + vertical * sine
    along = vertical * cosine - horizontal * sine
    gabors = np.exp(-(across**2 + along**2) / 2) * np.cos(np.pi * across)
    return gabors / np.linalg.norm(gabors, axis=0)


def _prior_covariance():
    """Circulant covariance whose power falls by a factor e per frequency; C_00 = 4."""
    # the benchmark ends at frequency 24, without the highest one that 50 latents allow
    frequency = np.arange(N_LATENTS // 2)
    power = 20 * np.exp(-frequency)
    lag = np.arange(N_LATENTS)
    angle = 2 * np.pi / N_LATENTS * (lag[:, None] - lag)
    # cos a cos b + sin a sin b over unit-norm waves; the constant has half as many of them
    norm = np.where(frequency == 0, N_LATENTS, N_LATENTS / 2)
    covariance = np.cos(angle[..., None] * frequency) @ (power / norm)
    covariance += 0.01 * np.eye(N_LATENTS) - 0.25
    return covariance * (4 / covariance[0, 0])


def _posterior(filters, prior, stimulus, contrast):
    """Mean and covariance of the latents given a stimulus and its contrast."""
    precision = np.linalg.inv(prior) + (contrast / PIXEL_NOISE) ** 2 * filters.T @ filters
    covariance = np.linalg.inv(precision)
    return contrast / PIXEL_NOISE**2 * covariance @ (filters.T @ stimulus), covariance


def _potential(latents):
    """Membrane potential, in mV, that stands for a latent; it is 3.5 mV at 0."""
    baseline = (3.5 / 2.4) ** (1 / 0.6)
    return 2.4 * np.maximum(latents + baseline, 0) ** 0.6


def _transformed_moments(mean, covariance, transform):
    """Mean and covariance of `transform` of a Gaussian vector, element by element."""
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(scale, scale)
    density = np.exp(-(NODES**2) / 2)
    density /= density.sum()
    values = transform(mean[:, None] + scale[:, None] * NODES)
    means = values @ density
    deviations = values - means[:, None]
    products = np.diag(deviations**2 @ density)
    for i in range(1, len(mean)):
        products[i, :i] = products[:i, i] = _expected_products(
            deviations[i], deviations[:i], correlation[i, :i]
        )
    return means, products


def _expected_products(f, g, correlation):
    """E[f(a) g_j(b)] for standard normal a and b of correlation r_j, f and g on the nodes.

    With evenly spaced nodes the density is exp(-(a + b)^2 / (4 (1 + r))) times
    exp(-(a - b)^2 / (4 (1 - r))): its exponentials are needed at the 401 sums of two nodes
    only, which also are the differences.
    """
    n = len(NODES)
    sums = np.linspace(2 * NODES[0], 2 * NODES[-1], 2 * n - 1)
    r = correlation[:, None]
    of_sum = sliding_window_view(np.exp(-(sums**2) / (4 * (1 + r))), n, axis=1)
    of_difference = sliding_window_view(np.exp(-(sums**2) / (4 * (1 - r))), n, axis=1)[:, ::-1]
    density = of_sum * of_difference
    return ((f @ density) * g).sum(1) / density.sum((1, 2))


def make_cued_sinusoids(
    n_neurons=1000,
    *,
    n_conditions=1,
    n_times=100,
    update_interval=10.0,
    period=1000.0,
    amplitude=0.5,
    cue_amplitude=0.63,
    cue_duration=200.0,
    random_state=None,
):
    r"""Cue currents, and sinusoids of random phase that are to follow them in every cell.

    The task of [1]_ for spiking networks: cell i is to have the drive :math:`a \sin(2 \pi (t
    - \phi_i) / T)` about its mean after a frozen random cue.

    Parameters
    ----------
    n_neurons : int, default=1000
        Number of cells.
    n_conditions : int, default=1
        Number of cues, each with phases of its own.
    n_times : int, default=100
        Entries of a target.
    update_interval : float, default=10.0
        Time in ms between them; the first is as much after the cue.
    period : float, default=1000.0
        T in ms.
    amplitude : float, default=0.5
        a, in units of the threshold.
    cue_amplitude : float, default=0.63
        Standard deviation of the cue currents, stationary Ornstein-Uhlenbeck processes with a
        correlation time of 20 ms.
    cue_duration : float, default=200.0
        In ms; the cue has an entry for each.
    random_state : int, RandomState instance or None, default=None
        Source of cues and phases.

    Returns
    -------
    X : ndarray of shape (n_conditions, cue_duration, n_neurons)
        Cue currents.
    y : ndarray of shape (n_conditions, n_times, n_neurons)
        Target drives.

    References
    ----------
    .. [1] Kim & Chow (2021). Training spiking neural networks in the strong coupling regime.
       Neural Computation 33(5).
    """
    rng = check_random_state(random_state)
    n_steps, keep = round(cue_duration), np.exp(-1 / CUE_CORRELATION)
    X = rng.standard_normal((n_conditions, n_steps, n_neurons))
    for i in range(1, n_steps):
        X[:, i] = keep * X[:, i - 1] + np.sqrt(1 - keep**2) * X[:, i]
    phases = period * rng.random_sample((n_conditions, 1, n_neurons))
    t = update_interval * np.arange(1, n_times + 1)[:, None]
    return cue_amplitude * X, amplitude * np.sin(2 * np.pi * (t - phases) / period)


def make_evidence_integration(
    n_samples=1000, *, n_words=50, n_inputs=50, n_classes=3, delay=0, random_state=None
):
    """Sequences of words for one of several options; the most frequent option wins.

    Words are random binary vectors over 5: one for each class, one that stands for nothing,
    and one that ends every sequence. Sequences in which two options are equally frequent are
    left out [1]_.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of sequences.
    n_words : int, default=50
        Words of a sequence, the delay and the end marker included.
    n_inputs : int, default=50
        Numbers of a word.
    n_classes : int, default=3
        Options.
    delay : int, default=0
        Words of zeros before the end marker.
    random_state : int, RandomState instance or None, default=None
        Source of words and sequences. Sequences drawn at once share their words; split them
        to get training and test data.

    Returns
    -------
    X : ndarray of shape (n_samples, n_words * n_inputs)
        Word after word.
    y : ndarray of shape (n_samples,), int
        The most frequent option.

    References
    ----------
    .. [1] Hazelden, Liu, Shlizerman & Shea-Brown (2023). Evolutionary algorithms as an
       alternative to backpropagation for supervised training of biophysical neural networks
       and neural ODEs. arXiv:2311.10869. As in its first author's public code.
    """
    n_evidence = n_words - delay - 1
    if n_evidence < 1:
        raise ValueError(
            f"n_words={n_words} leaves no evidence before a delay of {delay} words and an end."
        )
    rng = check_random_state(random_state)
    words = rng.randint(0, 2, (n_classes + 2, n_inputs)) / 5
    drawn, labels, n_found = [], [], 0
    while n_found < n_samples:
        sequences = rng.randint(0, n_classes + 1, (n_samples, n_evidence))
        counts = (sequences[:, :, None] == np.arange(n_classes)).sum(1)
        first, second = np.sort(counts, axis=1)[:, :-3:-1].T
        drawn.append(sequences[first > second])
        labels.append(counts[first > second].argmax(1))
        n_found += len(labels[-1])
    sequences, y = np.concatenate(drawn)[:n_samples], np.concatenate(labels)[:n_samples]
    end = np.broadcast_to(words[-1], (n_samples, 1, n_inputs))
    silence = np.zeros((n_samples, delay, n_inputs))
    return np.concatenate([words[sequences], silence, end], axis=1).reshape(n_samples, -1), y


def make_working_memory(
    n_samples=1000, *, n_words=50, n_inputs=50, n_classes=3, delay=20, random_state=None
):
    """Evidence integration with a silent delay before the end marker.

    Parameters
    ----------
    n_samples, n_words, n_inputs, n_classes, random_state
        See :func:`make_evidence_integration`.
    delay : int, default=20
        Words of zeros before the end marker.

    Returns
    -------
    X : ndarray of shape (n_samples, n_words * n_inputs)
    y : ndarray of shape (n_samples,), int
    """
    return make_evidence_integration(
        n_samples,
        n_words=n_words,
        n_inputs=n_inputs,
        n_classes=n_classes,
        delay=delay,
        random_state=random_state,
    )


def make_two_alternatives(n_samples=1000, *, random_state=None):
    """Perceptual decision between two alternatives: which of two inputs is stronger?

    Seven steps of 100 ms show both, a last one asks. Inputs are fixation (never on), and
    two channels of mean 0.5 plus or minus half the coherence, 0 to 51.2%, with normal noise of
    standard deviation 0.1. In a fifth of the trials there is nothing to see.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 3)
        Step after step.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last, 1 or 2 there.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       PerceptualDecisionMaking of the library NeuroGym.
    """
    rng = check_random_state(random_state)
    side = rng.randint(2, size=n_samples)
    coherence = rng.choice([0, 6.4, 12.8, 25.6, 51.2], n_samples) / 200
    X = np.zeros((n_samples, TASK_STEPS, 3))
    for channel in (0, 1):
        sign = np.where(side == channel, 1, -1)
        X[:, :-1, 1 + channel] = 0.5 + (sign * coherence)[:, None]
    X[:, :-1, 1:] += CHANNEL_NOISE * rng.standard_normal((n_samples, TASK_STEPS - 1, 2))
    return X.reshape(n_samples, -1), _at_the_end(side + 1)


def make_delayed_match(n_samples=1000, *, random_state=None):
    """Delayed match to sample: are two stimuli, five steps apart, the same?

    Inputs are fixation, on until the last step, and two channels, (1, 0) or (0, 1) in the first
    step (sample) and the seventh (test), with normal noise of standard deviation 0.1. The
    last step asks.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 3)
        Step after step.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last; there 1 if they match and 2 if not.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       DelayMatchSample of the library NeuroGym.
    """
    rng = check_random_state(random_state)
    sample, test = rng.randint(2, size=(2, n_samples))
    X = np.zeros((n_samples, TASK_STEPS, 3))
    X[:, :-1, 0] = 1.0
    everyone = np.arange(n_samples)
    for step, shown in ((0, sample), (TASK_STEPS - 2, test)):
        X[everyone, step, 1 + shown] = 1.0
        X[:, step, 1:] += CHANNEL_NOISE * rng.standard_normal((n_samples, 2))
    return X.reshape(n_samples, -1), _at_the_end(np.where(sample == test, 1, 2))


def make_contextual_decision(n_samples=1000, *, random_state=None):
    """Context-dependent decision: which input is stronger, in the modality that counts?

    Two steps show two modalities of two channels each, with independent sides and coherences
    of 5, 15 or 50% and normal noise of standard deviation 0.1; five steps later the last one
    asks. One of two more channels is on all the time and says which modality counts.

    Parameters
    ----------
    n_samples : int, default=1000
        Number of trials.
    random_state : int, RandomState instance or None, default=None

    Returns
    -------
    X : ndarray of shape (n_samples, 8 * 7)
        Step after step: fixation (never on), both modalities, cue.
    y : ndarray of shape (n_samples, 8), int
        0 in all steps but the last, 1 or 2 there.

    References
    ----------
    .. [1] Liu, Baratin, Cornford, Mihalas, Shea-Brown & Lajoie (2024). How connectivity
       structure shapes rich and lazy learning in neural circuits. ICLR. The task is
       ContextDecisionMaking of the library NeuroGym, with an explicit context.
    """
    rng = check_random_state(random_state)
    context = rng.randint(2, size=n_samples)
    sides = rng.randint(2, size=(n_samples, 2))
    coherence = rng.choice([5, 15, 50], (n_samples, 2)) / 200
    X = np.zeros((n_samples, TASK_STEPS, 7))
    for modality in (0, 1):
        for channel in (0, 1):
            sign = np.where(sides[:, modality] == channel, 1, -1)
            mean = 0.5 + sign * coherence[:, modality]
            noise = CHANNEL_NOISE * rng.standard_normal((n_samples, 2))
            X[:, :2, 1 + 2 * modality + channel] = mean[:, None] + noise
    everyone = np.arange(n_samples)
    X[everyone, :, 5 + context] = 1.0
    return X.reshape(n_samples, -1), _at_the_end(sides[everyone, context] + 1)


def _at_the_end(decision):
    y = np.zeros((len(decision), TASK_STEPS), dtype=int)
    y[:, -1] = decision
    return y


def make_spiral(n_times=200, *, duration=25.0):
    r"""A cubic spiral, :math:`\dot y = A y^3`, as data for neural differential equations.

    Parameters
    ----------
    n_times : int, default=200
        Evenly spread times.
    duration : float, default=25.0
        The last of them.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With `t` of shape (n_times,), `y` of shape (n_times, 2), and `slope`, from t and y to
        the derivative.
    """
    matrix = np.array([[-0.1, 2.0], [-2.0, -0.1]])
    return _solution(lambda t, y: matrix @ y**3, [2.0, 0.0], np.linspace(0, duration, n_times))


def make_robertson(n_times=50):
    r"""Robertson's chemical reaction, the usual stiff differential equation.

    .. math::
        \dot y_1 &= -k_1 y_1 + k_3 y_2 y_3, \\
        \dot y_2 &= k_1 y_1 - k_2 y_2^2 - k_3 y_2 y_3, \\
        \dot y_3 &= k_2 y_2^2,

    with :math:`k = (0.04, 3 \cdot 10^7, 10^4)` from y = (1, 0, 0).

    Parameters
    ----------
    n_times : int, default=50
        Times, evenly spread on a logarithmic scale from 1e-5 to 1e5.

    Returns
    -------
    data : :class:`~sklearn.utils.Bunch`
        With `t` of shape (n_times,), `y` of shape (n_times, 3), and `slope`, from t and y to
        the derivative.
    """

    def slope(t, y):
        slow, fast, back = 0.04 * y[0], 3e7 * y[1] ** 2, 1e4 * y[1] * y[2]
        return np.array([back - slow, slow - fast - back, fast])

    return _solution(slope, [1.0, 0.0, 0.0], np.logspace(-5, 5, n_times))


def _solution(slope, start, t):
    solution = solve_ivp(slope, (0, t[-1]), start, method="Radau", t_eval=t, rtol=1e-8, atol=1e-12)
    return Bunch(t=t, y=solution.y.T, slope=slope)
