"""Recursive least squares for many cells at once, with any quadratic penalty."""

from __future__ import annotations

import numpy as np
import torch

__all__ = ["RecursiveLeastSquares"]

PENDING = 16  # samples between two passes that write all of P
CHUNK = 256  # cells worked on at once where more than P would be needed


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
    penalty : ndarray of shape (n_inputs, n_inputs), or callable
        :math:`C_0`, symmetric positive definite; or from a slice of cells to an array of shape
        (n, n_inputs, n_inputs), the :math:`C_0` of each.

    Attributes
    ----------
    weights : ndarray of shape (n_cells, n_inputs)
        A copy, changed in place.
    """

    def __init__(self, weights, penalty):
        self.weights = np.array(weights)
        n_cells, n_inputs = self.weights.shape
        self._p = np.empty((n_cells, n_inputs, n_inputs), self.weights.dtype)
        if callable(penalty):
            for cells in self._chunks():
                self._p[cells] = np.linalg.inv(penalty(cells))
        else:
            self._p[:] = np.linalg.inv(penalty)
        self._kept = np.zeros((n_cells, PENDING, n_inputs), self.weights.dtype)
        self._n_kept = 0

    @property
    def precision(self):
        """P of every cell, ndarray of shape (n_cells, n_inputs, n_inputs)."""
        self._write()
        return self._p

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
        kept = torch.from_numpy(self._kept[:, : self._n_kept])
        gain = torch.bmm(torch.from_numpy(self._p), x)
        if self._n_kept:
            gain = gain - torch.bmm(kept.mT, torch.bmm(kept, x))
        shrink = (1 / (1 + (x * gain).sum(1))).numpy()
        gain = gain[..., 0].numpy()
        self.weights -= shrink * np.asarray(error, self.weights.dtype)[:, None] * gain
        self._kept[:, self._n_kept] = np.sqrt(shrink) * gain
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
        for cells in self._chunks():
            self._fix_at_zero(self.weights[cells], self._p[cells], which[cells].copy())

    @staticmethod
    def _fix_at_zero(weights, p, which):
        while which.any():
            cells = np.flatnonzero(which.any(1))
            inputs = which[cells].argmax(1)
            which[cells, inputs] = False
            column = p[cells, :, inputs]
            variance = column[np.arange(len(cells)), inputs]
            # not positive: fixed already, or lost to rounding, so that the others keep their place
            new = variance > 0
            some, column, variance = cells[new], column[new], variance[new, None]
            weights[some] -= column * (weights[some, inputs[new]][:, None] / variance)
            p[some] -= column[:, :, None] * (column / variance)[:, None]
            weights[cells, inputs] = 0.0
            p[cells, :, inputs] = 0.0
            p[cells, inputs] = 0.0

    def _chunks(self):
        return [slice(i, i + CHUNK) for i in range(0, len(self.weights), CHUNK)]

    def _write(self):
        if not self._n_kept:
            return
        for cells in self._chunks():
            kept = torch.from_numpy(self._kept[cells, : self._n_kept])
            torch.from_numpy(self._p[cells]).baddbmm_(kept.mT, kept, alpha=-1)
        self._n_kept = 0
