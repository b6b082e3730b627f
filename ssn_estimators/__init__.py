"""Train cortical-like recurrent circuits as easily as a logistic regression."""

import importlib

__version__ = "0.2.0"

_MODULES = {
    "Circuit": "circuit",
    "Receptors": "receptors",
    "gaussian_ring": "geometry",
    "Simulation": "simulation",
    "simulate": "simulation",
    "simulate_many": "simulation",
    "StationaryMoments": "stationary",
    "stationary_moments": "stationary",
    "choose_parents": "growth",
    "gain_of_splits": "growth",
    "random_circuit": "training.starts",
    "split": "growth",
    "stable_pair": "training.starts",
    "stage_sizes": "growth",
    "SSNClassifier": "classifier",
    "SSNRegressor": "regressor",
    "SSNSampler": "sampler",
    "SSNSequenceClassifier": "sequences",
    "SSNSequenceRegressor": "sequences",
    "CircuitRegressor": "fitting",
    "SpikingRegressor": "spiking.regressor",
    "SpikingSimulation": "spiking.simulation",
    "MorrisLecar": "biophysical.morris_lecar",
    "MorrisLecarClassifier": "biophysical.classifier",
    "RNNClassifier": "rnn",
    "FokkerPlanckRegressor": "density",
    "GMMFlow": "density",
    "CNNClassifier": "lateral",
    "LateralContext": "lateral",
    "robustness_curve": "lateral",
    "EvolutionStrategy": "evolution",
    "estimate_gradient": "evolution",
    "block_init": "initial_weights",
    "dale_init": "initial_weights",
    "from_connectivity": "initial_weights",
    "low_rank_init": "initial_weights",
    "with_inhibition": "initial_weights",
    "fit_many": "many",
    "fit_networks": "many",
    "as_sbi_simulator": "sweeps",
    "sweep": "sweeps",
    "AutoencoderEncoder": "encoders",
    "ContrastNormalizer": "images.contrast",
    "GaborEncoder": "images.gabor",
    "gabor_filters": "images.gabor",
    "GaussianScaleMixture": "images.scale_mixture",
    "StimulusSwitch": "inspection.switching",
    "stimulus_switch": "inspection.switching",
    "SamplingReport": "inspection.sampling",
    "sampling_report": "inspection.sampling",
    "energy_distance": "inspection.sampling",
    "sliced_wasserstein": "inspection.sampling",
    "OperatingReport": "inspection.stability",
    "StabilityReport": "inspection.stability",
    "make_stability_scorer": "inspection.stability",
    "stability_report": "inspection.stability",
    "stability_score": "inspection.stability",
    "Checkpoint": "checkpoints",
    "load": "persistence",
    "save": "persistence",
    "ContrastResponseDisplay": "plotting",
    "GrowthDisplay": "plotting",
    "PosteriorDisplay": "plotting",
    "RasterDisplay": "plotting",
    "RobustnessDisplay": "plotting",
    "SizeTuningDisplay": "plotting",
    "SpectrumDisplay": "plotting",
    "StabilityDisplay": "plotting",
    "StimulusSwitchDisplay": "plotting",
    "TrajectoryDisplay": "plotting",
    "TrialDisplay": "plotting",
    "TuningDisplay": "plotting",
    "WeightsDisplay": "plotting",
    "DivergenceError": "exceptions",
}
_SUBMODULES = (
    "circuits",
    "datasets",
    "density",
    "fitting",
    "geometry",
    "inspection",
    "lateral",
    "rate_functions",
    "spike_statistics",
    "stimuli",
)
__all__ = ["__version__", *_SUBMODULES, *_MODULES]


def __getattr__(name):
    # torch takes a second to import: only those who ask for a name pay for it
    if name in _MODULES:
        module = importlib.import_module(f"{__name__}.{_MODULES[name]}")
        return getattr(module, name)
    if name in _SUBMODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
