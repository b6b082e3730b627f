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


def percepts(model, latents, X):
    """Images that latents stand for, at the contrasts that the model finds in the stimuli X.

    Parameters
    ----------
    model : object with `inverse_transform`
        If it has no `posterior_z`, images are those of its own contrast.
    latents : array of shape (n_times, n_samples, n_latents)
    X : array-like of shape (n_samples, n_features)

    Returns
    -------
    images : ndarray of shape (n_times, n_samples, n_features)
    """
    contrast = {"z": model.posterior_z(named(X, model))} if hasattr(model, "posterior_z") else {}
    return np.stack([model.inverse_transform(x, **contrast) for x in latents])
