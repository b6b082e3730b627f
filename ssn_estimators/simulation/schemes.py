"""Schemes of integration: their coefficients, and their equations.

All engines are these schemes in other words, and take their coefficients from here.
"""

__all__ = ["COEFFICIENTS", "SCHEMES"]

# Shares of increments in a step. Linear multi-step schemes: of this one and of the last one;
# Heun: of the increment at the start and of that at the prediction.
COEFFICIENTS = {"euler": (1.0, 0.0), "ab2": (1.5, -0.5), "heun": (0.5, 0.5)}

# A scheme takes u one step of dt ahead. It gets the forcing at both ends of the step and the
# slope at the start of the step before (None at the first), and returns u and its own slope.


def euler(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    return u + dt * slope, slope


def heun(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    return u + dt / 2 * (slope + du_dt(u + dt * slope, forcing_next)), slope


def ab2(du_dt, u, forcing, forcing_next, dt, previous):
    slope = du_dt(u, forcing)
    previous = slope if previous is None else previous
    return u + dt / 2 * (3 * slope - previous), slope


SCHEMES = {"euler": euler, "heun": heun, "ab2": ab2}
