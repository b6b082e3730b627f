"""What the loops over time get: named tuples of arrays, which Numba takes as they are.

Arrays have shape (n_neurons, n_columns), columns ordered (input, sign, draw): draws are
independent noise, and with antithetic pairs each is used with either sign. All is measured in
increments of u per step: with e = dt / tau,

    du = F - e u + A r,    r = phi(u),    A = e k W,    F = e (f(h) + n z).

Of circuits in the rate form, u stands for rates, and

    du = c phi(F + A u) - e u,    A = W,    F = f(h) + n z,    c = e k.
"""

from typing import NamedTuple

__all__ = [
    "Cells",
    "Columns",
    "Forcing",
    "Gradients",
    "Law",
    "Owed",
    "Returning",
    "Room",
    "Scheme",
    "Source",
    "Totals",
]


class Cells(NamedTuple):
    """A circuit."""

    recurrent: object  # A, on the way back its transpose, of shape (n_neurons, n_neurons)
    relative_step: object  # e, of shape (n_neurons, 1)
    law: object
    most: float  # legal potentials do not exceed it
    response: object  # of the rate form, see below: c, of shape (n_neurons, 1); else of (0, 1)


class Law(NamedTuple):
    """The rate function phi: a power, or a table of `tables.py`, which for powers is empty."""

    gamma: float  # 0 with a table
    table: object


class Columns(NamedTuple):
    """Which kick each column gets, and with which sign; arrays of shape (n_columns,)."""

    kick: object
    sign: object


class Source(NamedTuple):
    """Where forcing comes from."""

    base: object  # e f(h), of shape (1 or n_steps + 1, n_neurons, n_columns)
    process: object  # noise, as `ornstein_uhlenbeck` takes it
    values: object  # takes some of it, of shape (chunk + 1, n_neurons, n_kicks)
    kicks: object  # takes e n z, of the same shape
    noise_factor: object  # e n, of shape (n_neurons, n_neurons), or (n_neurons, 1): its diagonal
    columns: Columns
    quiet: bool  # whether n is 0, and nobody asks for z: then kicks are 0


class Forcing(NamedTuple):
    """F = base + sign * kicks[..., kick] at the start of every step and at the end of the last."""

    base: object
    kicks: object
    columns: Columns


class Scheme(NamedTuple):
    """Heun or a linear multi-step scheme, and its coefficients."""

    heun: bool
    current: float
    before: float


class Room(NamedTuple):
    """To work in: one array of shape (2, ...), and two of the shape of u."""

    force: object
    rates: object
    increment: object


class Totals(NamedTuple):
    """Sums over steps of u, and of phi(u) where that is wanted.

    For the sake of rounding, the compiled loops add up stretches of 64 steps, by their numbers,
    apart; the plain ones put all into the last.
    """

    before: object  # of whole stretches, of shape (at most 2, n_neurons, n_columns)
    stretch: object  # of the present one
    n_steps: int  # before those that come


class Gradients(NamedTuple):
    """Arrays that take, in addition, the gradients of the base, of A and of e n."""

    base: object
    recurrent: object
    noise: object


class Owed(NamedTuple):
    """A stretch of time on the way back."""

    u: object  # at the start of every step, of shape (n_steps, n_neurons, n_columns)
    direct: object  # what the loss owes to u after every step, or after one for all
    z: object  # noise at the starts, and at the end of the last
    columns: Columns


class Returning(NamedTuple):
    """State of the way back, and room to work in."""

    grad_u: object  # gradient of u; changed from that at the end to that at the start
    carried: object  # what the step after owes to the increment of the last one
    x: object  # gradient of F
    outer: object  # of the shape of A
    rates: object
    back: object
    kick: object  # of the shape of the kicks of one step
