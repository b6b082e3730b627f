"""A recurrent network without cell types, noise or dynamics in time: a baseline.

In a file of its own, so that fitted ones can be read by any process.
"""

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin


class PlainRNN(ClassifierMixin, BaseEstimator):
    """`torch.nn.RNN` on a constant input for some steps, with a linear readout of its mean."""

    def __init__(self, n_hidden=100, n_steps=20, max_iter=3000, random_state=None):
        self.n_hidden, self.n_steps = n_hidden, n_steps
        self.max_iter, self.random_state = max_iter, random_state

    def fit(self, X, y):
        self.classes_, labels = np.unique(y, return_inverse=True)
        generator = torch.Generator().manual_seed(self.random_state)
        with torch.random.fork_rng():
            torch.manual_seed(self.random_state)
            self.rnn_ = torch.nn.RNN(X.shape[1], self.n_hidden, batch_first=True)
            self.readout_ = torch.nn.Linear(self.n_hidden, len(self.classes_))
        parameters = [*self.rnn_.parameters(), *self.readout_.parameters()]
        optimizer = torch.optim.Adam(parameters)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.005, self.max_iter)
        X, labels = torch.as_tensor(X), torch.as_tensor(labels)
        for _ in range(self.max_iter):
            batch = torch.randint(len(X), (256,), generator=generator)
            loss = torch.nn.functional.cross_entropy(self._logits(X[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
        return self

    def _logits(self, X):
        activity, _ = self.rnn_(X[:, None].expand(-1, self.n_steps, -1))
        return self.readout_(activity[:, self.n_steps // 2 :].mean(1))

    @torch.no_grad()
    def predict(self, X):
        blocks = torch.as_tensor(X).split(1000)
        return self.classes_[torch.cat([self._logits(x).argmax(1) for x in blocks]).numpy()]
