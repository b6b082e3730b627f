"""
Sampling as perception: a circuit that infers what is in an image
=================================================================

A Gaussian scale mixture explains patches of photographs as sums of Gabor filters at some
contrast. A recurrent circuit is trained so that its noisy activity samples the posterior of that
model, for any patch, with one set of weights.
"""

# %%
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_sample_images
from sklearn.feature_extraction.image import extract_patches_2d

from ssn_estimators import (
    ContrastNormalizer,
    GaussianScaleMixture,
    SSNSampler,
    StimulusSwitchDisplay,
)

SHAPE = (12, 12)
rng = np.random.RandomState(0)
patches = [
    extract_patches_2d(image @ [0.2989, 0.5870, 0.1140], SHAPE, max_patches=3000, random_state=rng)
    for image in load_sample_images().images
]
X = ContrastNormalizer(contrast="per_image").fit_transform(
    np.concatenate(patches).reshape(6000, -1)
)
rng.shuffle(X)
X_train, X_test = X[:5000], X[5000:]

# %%
# The generative model: filters, their covariance, contrast and noise.
model = GaussianScaleMixture(16, random_state=0).fit(X_train)
print(f"explained energy {model.explained_energy_:.2f}, sigma_x {model.noise_std_:.2f}")

# %%
# The circuit: sixteen pairs of cells, grown from one. Its cost is the normalised error of mean,
# variance and covariance; answering every patch with the mean moments of all is the predictor to
# beat.
sampler = SSNSampler(model, max_iter=600, finetune_iter=200, random_state=0)
sampler.fit(X_train)
network = sampler.normalized_cost(X_test[:200])
mean, covariance = model.posterior_moments(X_test[:200])
constant = model.posterior_moments(X_train)[1].mean(0)
trivial = ((covariance - constant) ** 2).sum((1, 2)) / (covariance**2).sum((1, 2))
print(f"error of the covariance: {network.covariance:.2f}, of a constant one: {trivial.mean():.2f}")

# %%
# Means and standard deviations of the samples against the exact posterior.
predicted, deviation = sampler.predict(X_test[:200], return_std=True)
exact = np.sqrt(np.einsum("nii->ni", covariance))
figure, axes = plt.subplots(1, 2, figsize=(7, 3.5), layout="constrained")
for ax, found, wanted, name in (
    (axes[0], predicted, mean, "mean"),
    (axes[1], deviation, exact, "standard deviation"),
):
    ax.plot(wanted.ravel(), found.ravel(), ".", ms=2, color="#2563a8")
    ends = [wanted.min(), wanted.max()]
    ax.plot(ends, ends, color="0.6", lw=0.8)
    ax.set(xlabel=f"posterior {name}", ylabel=f"{name} of the samples")

# %%
# When one patch replaces another, the samples follow.
contrast = X_test.std(1)
old, new = X_test[np.argsort(-contrast)[[3, 8]]]
display = StimulusSwitchDisplay.from_estimator(sampler, [old], [new], image_shape=SHAPE)
print(f"90% of the way after {display.switch.time_to(0.9)[0]:g} ms")

# %%
# What the circuit perceives, the patch for which the means of its samples stand, leaves out what
# the model has no features for. So it takes noise away, nearly as well as the exact posterior.


def compare(shown, pixels=..., which=""):
    """Some patches in columns, and how near all are to the first ones in some of their pixels."""
    clean, *_ = shown.values()
    _, axes = plt.subplots(4, 4, figsize=(5.5, 5.8), layout="constrained")
    for column, (name, images) in zip(axes.T, shown.items(), strict=True):
        error = ((images - clean)[:, pixels] ** 2).mean()
        ratio = 10 * np.log10(np.ptp(clean) ** 2 / error) if error else np.inf
        print(f"{name:15} peak signal-to-noise ratio{which} {ratio:.1f} dB")
        for ax, image in zip(column, images[::50], strict=True):
            ax.imshow(image.reshape(SHAPE), cmap="gray", vmin=-3, vmax=3)
            ax.set_axis_off()
        column[0].set_title(name, fontsize=10)


clean = X_test[np.argsort(-contrast)[50:250]]
noisy = clean + rng.normal(scale=1.0, size=clean.shape)
shown = {
    "patch": clean,
    "with noise": noisy,
    "circuit": sampler.reconstruct(noisy),
    "exact posterior": model.inverse_transform(model.transform(noisy), model.posterior_z(noisy)),
}
compare(shown)

# %%
# Half of the pixels are missing, and grey in their place. The exact posterior takes those alone
# that are seen, and the others from its percept. The circuit takes grey for what is there, and so
# sees less contrast; it was never trained to fill in. (Nor can it be asked again with its percept
# filled in: its means grow faster than what they are of. Those of the exact posterior arrive.)
seen = rng.uniform(size=clean.shape[1]) < 0.5
missing = np.where(seen, clean, 0.0)
part = model.marginal(seen)
exact = model.inverse_transform(part.transform(clean[:, seen]), part.posterior_z(clean[:, seen]))
shown = {
    "patch": clean,
    "half missing": missing,
    "circuit": np.where(seen, clean, sampler.reconstruct(missing)),
    "exact posterior": np.where(seen, clean, exact),
}
compare(shown, ~seen, " of missing pixels")
