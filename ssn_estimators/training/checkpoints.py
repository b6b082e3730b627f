"""What must be written to go on after a crash: values of training as arrays, numbers and names."""

from __future__ import annotations

from dataclasses import fields

from ssn_estimators.training.plan import Model, Outcome

__all__ = ["model_from", "model_state", "outcome_from", "outcome_state"]


def model_state(model):
    return {"circuit": model.circuit, "arrays": model.arrays}


def model_from(state):
    return Model(state["circuit"], state["arrays"])


def outcome_state(outcome):
    state = {f.name: getattr(outcome, f.name) for f in fields(outcome)}
    return state | {"model": model_state(outcome.model)}


def outcome_from(state):
    return Outcome(**(state | {"model": model_from(state["model"])}))
