"""Recursive least squares for many cells at once, with any quadratic penalty."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["RecursiveLeastSquares"]

PENDING = 16  # samples between two passes that write all of P


class RecursiveLeastSquares:
    r"""Ridge regressions of many cells, each on inputs of its own, one sample at a time.

    After every sample the weights of each cell minimise

    .. math:: \sum_t (y_t - w \cdot x_t)^2 + (w - w_0)^T C_0 (w - w_0),

    with the gain :math:`k = P x`, :math:`w \leftarrow w - e k / (1 + x \cdot k)` and
    :math:`P \leftarrow P - k k^T / (1 + x \cdot k)` from :math:`P = C_0^{-1}`. Instead of
    writing P for every sample, which costs more than all arithmetic, some samples are kept
    aside as the factor K of :math:`P - K^T K`; the results are the same.

    Parameters
    ----------
    weights : ndarray of shape (n_cells, n_inputs)
        Where to start, :math:`w_0`; in their dtype everything is computed.
    penalty : ndarray of shape (n_inputs, n_inputs) or (n_cells, n_inputs, n_inputs)
        :math:`C_0`, symmetric positive definite.

    Attributes
    ----------
    weights : ndarray of shape (n_cells, n_inputs)
        A copy, changed in place.
    """

    def __init__(self, weights, penalty):
        self.weights = np.array(weights)
        self._w = torch.from_numpy(self.weights)
        n_cells, n_inputs = self.weights.shape
        penalty = torch.from_numpy(np.asarray(penalty, dtype=float))
        inverse = torch.linalg.inv(penalty).to(self._w.dtype)
        self._p = inverse.expand(n_cells, -1, -1).clone()
        self._kept = self._w.new_zeros(n_cells, PENDING, n_inputs)
        self._n_kept = 0

    @property
    def precision(self):
        """P of every cell, ndarray of shape (n_cells, n_inputs, n_inputs)."""
        self._write()
        return self._p.numpy()

    def update(self, inputs, error):
        """Take one sample of every cell in.

        Parameters
        ----------
        inputs : ndarray of shape (n_cells, n_inputs)
            The regressors x.
        error : ndarray of shape (n_cells,)
            What the present weights miss, :math:`e = w \\cdot x - y`.
        """
        x = torch.from_numpy(np.ascontiguousarray(inputs, self.weights.dtype))[..., None]
        kept = self._kept[:, : self._n_kept]
        gain = torch.bmm(self._p, x)
        if self._n_kept:
            gain = gain - torch.bmm(kept.mT, torch.bmm(kept, x))
        shrink = 1 / (1 + (x * gain).sum(1))
        gain = gain[..., 0]
        self._w -= shrink * torch.from_numpy(np.asarray(error, self.weights.dtype))[:, None] * gain
        self._kept[:, self._n_kept] = shrink.sqrt() * gain
        self._n_kept += 1
        if self._n_kept == PENDING:
            self._write()

    def fix_at_zero(self, which):
        """Set weights to zero for good; the others move to the minimum under this constraint.

        Parameters
        ----------
        which : ndarray of shape (n_cells, n_inputs), bool
        """
        self._write()
        which = which.copy()
        while which.any():
            cells = np.flatnonzero(which.any(1))
            inputs = which[cells].argmax(1)
            which[cells, inputs] = False
            column = self._p[cells, :, inputs]
            variance = column[np.arange(len(cells)), inputs][:, None]
            new = variance[:, 0] > 0  # the others are fixed already
            column, variance = column[new], variance[new]
            cells, inputs = cells[new.numpy()], inputs[new.numpy()]
            self._w[cells] -= column * (self._w[cells, inputs][:, None] / variance)
            self._p[cells] -= column[:, :, None] * (column / variance)[:, None]
            self._w[cells, inputs] = 0.0
            self._p[cells, :, inputs] = 0.0
            self._p[cells, inputs] = 0.0

    def _write(self):
        if self._n_kept:
            kept = self._kept[:, : self._n_kept]
            self._p.baddbmm_(kept.mT, kept, alpha=-1)
            self._n_kept = 0
