"""Training: from a start and a plan of stages to a network that is stable."""

from ssn_estimators._torch import Patience
from ssn_estimators.training.classification import Classification
from ssn_estimators.training.gradients import Followed, Searched, Simulated, Skip, Solved
from ssn_estimators.training.guard import Guard, NoGuard, TrialGuard
from ssn_estimators.training.loop import train
from ssn_estimators.training.penalties import Penalties
from ssn_estimators.training.plan import INFORMED, Growth, Model, Outcome, Phase, Plan
from ssn_estimators.training.regression import Regression
from ssn_estimators.training.sequences import SequenceClassification, SequenceRegression
from ssn_estimators.training.side_by_side import run_together
from ssn_estimators.training.starts import random_circuit, stable_pair

__all__ = [
    "INFORMED",
    "Classification",
    "Followed",
    "Growth",
    "Guard",
    "Model",
    "NoGuard",
    "Outcome",
    "Patience",
    "Penalties",
    "Phase",
    "Plan",
    "Regression",
    "Searched",
    "SequenceClassification",
    "SequenceRegression",
    "Simulated",
    "Skip",
    "Solved",
    "TrialGuard",
    "random_circuit",
    "run_together",
    "stable_pair",
    "train",
]
