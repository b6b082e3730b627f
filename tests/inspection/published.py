"""Circuits of the literature, and one of our own, whose behaviour is known."""

import numpy as np

from ssn_estimators import Circuit

J = np.array([[2.5, -1.3], [2.4, -1.0]])
PAIR_A = Circuit(J, 1, k=0.04)  # Ahmadian, Rubin & Miller 2013
PAIR_B = Circuit(J * np.pi * 0.774, 1, k=0.04)  # Holt, Miller & Ahmadian 2023
# Hennequin, Ahmadian, Rubin, Lengyel & Miller 2018; the noise is that of independent cells
HENNEQUIN = Circuit(
    [[1.25, -0.65], [1.2, -0.5]],
    1,
    np.array([0.2, 0.1]) * np.sqrt(1 + np.array([20.0, 10.0]) / 50),
    tau_eta=50.0,
)
PERSISTENT = Circuit([[3.4, -1.6], [1.75, -0.125]], 1, k=0.04, tau_i=5.0)
LIMIT_CYCLE = Circuit([[1.5, -1.0], [10.0, -1.0]], 1, k=1.0, gamma=3, tau_e=10.0, tau_i=100.0)
KUCHIBHOTLA = Circuit(
    [
        [0.017, -0.956, -0.512, -0.045],
        [0.8535, -0.99, -0.307, -0.09],
        [1.285, 0.0, 0.0, -0.14],
        [2.104, -0.184, -0.734, 0.0],
    ],
    populations={"E": 1, "PV": 1, "SST": 1, "VIP": 1},
    k=0.01,
    gamma=2.2,
)

# four types in the centre and in the surround of a stimulus, cells of one type side by side
SIZES, CONTRASTS = np.array([5.0, 8, 13, 22, 36, 60]), np.array([0.03, 0.06, 0.12, 0.25, 0.5, 1])
CENTRE = [0, 2, 4, 6]


def size_contrast():
    """The circuit, and its drives of shape (n_contrasts, n_sizes, n_cells)."""
    own = np.array([[1.3, -1, -0.35, 0], [1.75, -1.4, -0.3, 0], [0.8, -0.05, 0, -0.6]])
    own = np.vstack([own, [0.65, -0.1, -0.5, 0]])
    between = own * [0.25, 0.15, 1, 0.05]
    weights = np.kron(own, np.eye(2)) + np.kron(between, 1 - np.eye(2))
    circuit = Circuit(
        weights,
        populations={"E": 2, "PV": 2, "SST": 2, "VIP": 2},
        k=0.04,
        tau={"E": 20, "PV": 10, "SST": 20, "VIP": 20},
    )
    strength = 1.25 * CONTRASTS**1.2 / (CONTRASTS**1.2 + 0.25**1.2)
    centre, surround = 1 - np.exp(-((SIZES / 9) ** 2)), np.clip((SIZES - 9) / 45, 0, 1) ** 0.7
    stimulus = np.multiply.outer(strength, np.stack([centre, surround], -1))
    drive = stimulus[:, :, None] * np.array([20, 14, 0, 6.5])[:, None]
    drive = drive + np.array([1, 5, 4.8, 4.5])[:, None]
    return circuit, drive.reshape(len(CONTRASTS), len(SIZES), 8)


def both(values):
    """The same drive to E and I."""
    return np.repeat(np.asarray(values, float)[:, None], 2, 1)
