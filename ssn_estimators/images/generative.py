"""What generative models of images make of latents, and how they are asked."""

import numpy as np

__all__ = ["named", "percepts"]


def named(X, model):
    """Valid inputs under the names of the data frame that a model was fitted to, if it was.

    A sampler hands on arrays; a model that was fitted before may know names, and miss them.
    """
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        return X
    try:
        import pandas as pd
    except ImportError:  # it was a data frame of another library
        return X
    return pd.DataFrame(X, columns=names)


def percepts(model, mean, variance):
    """Images that latents stand for, at the contrast that their own variances tell.

    Parameters
    ----------
    model : object with `inverse_transform`
        If it has no `z_from_variance`, images are those of its own contrast.
    mean, variance : arrays of shape (n_times, n_samples, n_latents)

    Returns
    -------
    images : ndarray of shape (n_times, n_samples, n_features)
    """
    if not hasattr(model, "z_from_variance"):
        return np.stack([model.inverse_transform(x) for x in mean])
    # of all times at once: each call makes the model's eigenbasis
    contrasts = model.z_from_variance(variance.reshape(-1, variance.shape[-1]))
    contrasts = contrasts.reshape(variance.shape[:-1])
    return np.stack([model.inverse_transform(x, z=z) for x, z in zip(mean, contrasts, strict=True)])
