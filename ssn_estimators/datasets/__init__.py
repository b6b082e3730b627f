"""The ring benchmark of probabilistic inference and its network; recordings; other tasks."""

from ssn_estimators.datasets.cognitive import (
    cognitive_task_scores,
    make_cognitive_task,
    response_labels,
)
from ssn_estimators.datasets.decisions import (
    make_contextual_decision,
    make_delayed_match,
    make_two_alternatives,
)
from ssn_estimators.datasets.environments import from_neurogym
from ssn_estimators.datasets.recordings import load_allen_traces
from ssn_estimators.datasets.ring import make_ring_gsm, make_ring_network
from ssn_estimators.datasets.sequences import (
    load_digits_by_row,
    make_evidence_integration,
    make_temporal_xor,
    make_working_memory,
)
from ssn_estimators.datasets.trajectories import make_cued_sinusoids, make_robertson, make_spiral

__all__ = [
    "cognitive_task_scores",
    "from_neurogym",
    "load_allen_traces",
    "load_digits_by_row",
    "make_cognitive_task",
    "make_contextual_decision",
    "make_cued_sinusoids",
    "make_delayed_match",
    "make_evidence_integration",
    "make_ring_gsm",
    "make_ring_network",
    "make_robertson",
    "make_spiral",
    "make_temporal_xor",
    "make_two_alternatives",
    "make_working_memory",
    "response_labels",
]
