"""Estimators of sequences: one place for the two forms in which these may be given."""

import numpy as np

__all__ = ["SequencesMixin"]


class SequencesMixin:
    """Takes sequences as rows, step after step, or with an axis of steps."""

    _steps = "n_steps"  # the parameter that says how many there are in a row

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        return tags

    def _rows(self, X, *, fitted=True):
        """X as rows, and the number of their steps: of the parameter, the network or the data."""
        n_steps = getattr(self, self._steps)
        if n_steps is None and fitted:
            n_steps = self.n_features_in_ // self.input_weights_.shape[1]
        shape = _shape_of(X)
        if len(shape) != 3:
            return X, n_steps or 1
        if n_steps not in (None, shape[1]):
            raise ValueError(
                f"X has {shape[1]} steps of {shape[2]} inputs, but {type(self).__name__} is for "
                f"{n_steps} ({self._steps}={getattr(self, self._steps)})."
            )
        return np.asarray(X).reshape(shape[0], shape[1] * shape[2]), shape[1]

    def _shared_out(self, X, n_steps):
        """Rows as an array of shape (n_samples, n_steps, n_inputs)."""
        if X.shape[1] % n_steps:
            raise ValueError(
                f"X has {X.shape[1]} features, which cannot be shared out among "
                f"{self._steps}={n_steps}."
            )
        return X.reshape(len(X), n_steps, -1)


def _shape_of(X):
    """Of nothing if it has none, which is for the check of rows to refuse."""
    if hasattr(X, "shape"):
        return X.shape
    try:
        return np.asarray(X).shape
    except (TypeError, ValueError):  # lists of different lengths
        return ()
