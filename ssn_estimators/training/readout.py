"""Tasks with a linear readout: inputs into a circuit, mean potentials out to its answers."""

from __future__ import annotations

import numpy as np

from ssn_estimators._torch import times_rows
from ssn_estimators.growth import shares_of

__all__ = ["Readout"]

INPUT_SPREAD = 0.15  # of h over inputs at the start, small against its mean: f is nearly linear
INPUT_MEAN = 0.5
SILENT = 0.1  # Hz
NOISE = ("noise_factor", "noise_profiles")  # parameters, of all structures that have many
WEIGHTS = ("weights", "weight_profiles")
TYPICAL, USUAL_GAIN = 5.0, 3.0  # mV, and Hz/mV there with the default k and gamma
FAN_IN = 3.0  # parameters of usual size whose rate is the usual one, if all act on one cell


class Readout:
    """Linear readout of the mean excitatory potentials; a task adds its loss, and that of chance.

    Its arrays are ``coef`` (n_outputs, n_excitatory), ``intercept`` (n_outputs,) and, with
    dense input, ``input_weights`` (n_neurons, n_features) and ``input_bias`` (n_neurons,), of
    inputs that are centred.
    """

    incoming, outgoing, nonnegative = ("input_weights", "input_bias"), ("coef",), ()

    def __init__(self, dense):
        self.dense = dense

    def start(self, n_excitatory, n_neurons, inputs, n_outputs, rng):
        """Arrays for a circuit that has not been trained yet, and gets these inputs."""
        # with dense input, a readout that knows nothing would teach cells to ignore it for good
        scale = 0.0 if self.dense else 1 / np.sqrt(n_excitatory)
        coef = rng.normal(scale=scale, size=(n_outputs, n_excitatory))
        arrays = {"coef": coef.astype(np.float32), "intercept": np.zeros(n_outputs, np.float32)}
        if self.dense:
            size = float((inputs**2).sum(1).mean()) ** 0.5
            scale = INPUT_SPREAD / size if size else 0.0
            weights = rng.normal(scale=scale, size=(n_neurons, inputs.shape[1]))
            arrays["input_weights"] = weights.astype(np.float32)
            arrays["input_bias"] = np.full(n_neurons, INPUT_MEAN, np.float32)
        return arrays

    def rates(self, circuit, inputs):
        """Factors of the learning rate of parameters that need another.

        Adam moves every parameter by the rate. If all input weights of a cell move together, h
        moves by the rate times the sum of the inputs: with many features far enough to silence a
        cell for all inputs within a few steps, for good, and with it the clones it will have. If
        the elements of the noise factor move at random, since gradients of noise are mostly
        noise, the variance of a cell's noise grows with their number. And the steeper the rate
        function, the more a step of a recurrent weight changes what cells do to each other.
        """
        gain = float(circuit.gain(np.float64(TYPICAL)))
        rates = dict.fromkeys(NOISE, FAN_IN / circuit.n_neurons)
        rates |= dict.fromkeys(WEIGHTS, USUAL_GAIN / gain)
        size = float(inputs.abs().sum(1).mean())
        if self.dense and size:
            rates["input_weights"] = FAN_IN / size
        return {name: rate for name, rate in rates.items() if rate < 1}

    def external(self, arrays, inputs):
        """External input h of all cells, or of E cells, from inputs."""
        if self.dense:
            return times_rows(inputs, arrays["input_weights"]) + arrays["input_bias"]
        return inputs

    def drive(self, circuit, arrays, inputs):
        h = self.external(arrays, inputs)
        return circuit.drive(h if self.dense else h[:, : circuit.n_excitatory])

    def outputs(self, potentials, arrays):
        read = potentials[:, : arrays["coef"].shape[1]]
        return times_rows(read, arrays["coef"]) + arrays["intercept"]

    @staticmethod
    def idle(rates):
        """Cells that no input makes fire."""
        return (rates.amax(0) < SILENT).cpu().numpy()

    def grow(self, arrays, old, new, origin, shares):
        read, coef = origin[: new.n_excitatory], arrays["coef"]
        # clones that get different inputs need nothing else to become different
        parts = (shares if self.dense else shares_of)(read, len(coef))
        coef = (coef[:, read] * parts).astype(coef.dtype)
        grown = dict(arrays, coef=coef)
        if self.dense:
            grown |= {name: arrays[name][origin] for name in ("input_weights", "input_bias")}
        return grown
