"""A further estimator takes a task, a plan and its answers, and touches nothing else.

The list in docs/contributing.rst, carried out: what stands here would be two new files.
"""

import numpy as np
import pytest
import torch
from sklearn.base import RegressorMixin
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from zoo import short_confirmations

from ssn_estimators._sklearn import fit_context, validate_data, with_callbacks
from ssn_estimators._torch import in_blocks
from ssn_estimators.base import BaseSSN
from ssn_estimators.training import Model, Penalties, Simulated, run_together
from ssn_estimators.training.classification import Classification

N_EXCITATORY, N_INHIBITORY = 6, 2


class MeanSquares(Classification):
    """Dense input, one linear readout of the mean potentials, and the squared error."""

    def __init__(self):
        super().__init__(dense=True)

    def loss(self, moments, arrays, targets):
        return ((self.outputs(moments.mean, arrays)[:, 0] - targets) ** 2).mean()

    def chance_loss(self, targets):
        return float(targets.var())


class MiniRegressor(RegressorMixin, BaseSSN):
    """Standardised features in, a standardised number out."""

    def __init__(
        self,
        growth="double",
        weight_structure=None,
        growth_iter=10,
        parents="last",
        clone_shares="random",
        k=0.3,
        gamma=2.0,
        tau_e=20.0,
        tau_i=10.0,
        tau_eta=20.0,
        solver="heun",
        dt=1.0,
        burn_in=40.0,
        window=20.0,
        n_trials=1,
        n_trials_predict=2,
        precision="float32",
        max_iter=100,
        batch_size=256,
        learning_rate="cosine",
        learning_rate_init=0.01,
        max_grad_norm=1.0,
        potential_penalty=0.01,
        stability_penalty=0.1,
        max_rejected_steps=10,
        early_stopping=False,
        validation_fraction=0.1,
        n_iter_no_change=10,
        tol=1e-4,
        warm_start=False,
        device="cpu",
        random_state=None,
        verbose=False,
    ):
        values = dict(locals())
        for name in self._get_param_names():
            setattr(self, name, values[name])

    @with_callbacks
    @fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y):
        return run_together([self._training(X, y)])[0]

    def _plan(self, rng, going_on, X, y):
        X, y = validate_data(self, X, y, reset=not going_on)
        data = [torch.from_numpy(x.astype(np.float32)) for x in (X, y)]
        task, sizes = MeanSquares(), self._sizes((N_EXCITATORY, N_INHIBITORY))

        def restart():
            arrays = task.start(*sizes[0][:1], sum(sizes[0]), data[0], 1, rng)
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            circuit = self._first_circuit(
                sizes[0], lambda: task.external(tensors, data[0][:256]).numpy(), rng
            )
            return Model(circuit, arrays)

        if going_on:
            self._check_unchanged()
        else:
            self.noise_seed_ = int(rng.randint(2**31 - 1))
        trials = self._trials(duration=self.window, covariance=False)
        return self._usual_plan(
            Model(self.circuit_, self.arrays_) if going_on else restart(),
            task,
            data,
            (self._phase(sizes[-1:] if going_on else sizes, Simulated(trials)),),
            trials=trials,
            samples=(X, y),
            restart=None if going_on else restart,
            penalties=Penalties(self.potential_penalty, stability=self.stability_penalty),
        )

    def _attributes(self, model):
        known = {"noise_seed_": self.noise_seed_, "n_features_in_": self.n_features_in_}
        structure = {"_fitted_structure": self.weight_structure}
        return known | structure | {"circuit_": model.circuit, "arrays_": model.arrays}

    def _drive(self, X):
        arrays = {name: torch.from_numpy(value) for name, value in self.arrays_.items()}
        inputs = torch.from_numpy(X.astype(np.float32))
        return MeanSquares().drive(self.circuit_.to_torch(), arrays, inputs).numpy()

    def predict(self, X):
        trials = self._trials(duration=self.window, covariance=False)
        circuit = self.circuit_.to_torch()
        arrays = {name: torch.from_numpy(value) for name, value in self.arrays_.items()}

        def read(drive):
            found = self._moments(circuit, drive, trials, "simulation", self.noise_seed_)
            return MeanSquares().outputs(found.mean, arrays)[:, 0]

        return in_blocks(read, self._drive(self._check_X(X)))


@pytest.fixture(scope="module")
def diabetes():
    X, y = load_diabetes(return_X_y=True)
    return X / X.std(0), (y - y.mean()) / y.std()


@pytest.fixture(scope="module")
def network(diabetes):
    with short_confirmations():
        return MiniRegressor(random_state=0).fit(*diabetes)


def test_it_is_trained_while_it_grows(network, diabetes):
    X, y = diabetes
    assert network.stability_ == 1.0
    assert [stage["n_excitatory"] for stage in network.growth_history_] == [1, 2, 4, 6]
    assert network.score(X, y) > LinearRegression().fit(X, y).score(X, y) - 0.1


def test_it_has_what_all_have(network, diabetes):
    X, y = diabetes
    assert not network.simulate(X[:5]).diverged.any()
    before = list(network.loss_curve_)
    with short_confirmations():
        network.set_params(warm_start=True, max_iter=5).fit(X, y)
    assert network.loss_curve_[: len(before)] == before
    assert len(network.loss_curve_) == len(before) + 5
