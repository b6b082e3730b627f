"""What fits on which card: engines and tiles by the shared memory that a kernel needs."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

import torch

__all__ = ["CARDS", "Choice", "choose", "runs_on"]

RESIDENT = 128  # cells of which all weights fit on a chip
TILED = 1024  # cells up to which blocks of weights pass through one kernel
FLOAT16_GAMMA = 2.5  # beyond, rates up to divergence need more than the range of float16
OLDEST = (8, 0)  # compute capability; older tensor cores have neither TF32 nor what Triton needs

# Bytes of shared memory a program needs, by cells of a block and columns of a tile: under TF32 and
# in float32, as Triton compiles the kernels (tests/simulation/test_gpu.py compiles them again)
RESIDENT_NEEDS = {
    (64, 32): (57_352, 81_928),
    (128, 32): (147_464, 229_384),
    (128, 16): (106_504, 180_232),
}
# the others by the first number of the compute capability: tensor cores that read shared memory
# themselves need more of it
TILED_NEEDS = {
    8: {(128, 64): (49_152, 98_304), (128, 32): (40_960, 81_920)},
    9: {(128, 64): (73_728, 147_456)},
    10: {(128, 64): (73_744, 180_272), (128, 32): (61_456, 147_504)},
}
OUTER_NEEDS = {
    8: {(64, 32): (75_776, 83_968), (128, 32): (151_552, 167_936), (128, 16): (75_776, 83_968)},
    9: {(64, 32): (77_824, 88_064), (128, 32): (151_552, 167_936)},
    10: {(64, 32): (91_216, 99_408), (128, 32): (181_328, 197_712), (128, 16): (90_704, 98_896)},
}
# Of cards by their compute capability, in bytes a program: A100, H100, B200, RTX 50
CARDS = {(8, 0): 166_912, (9, 0): 232_448, (10, 0): 232_448, (12, 0): 101_376}


class Choice(NamedTuple):
    """Which engine, with tiles of how many columns, and the same for the outer products."""

    engine: str  # "resident", "tiled" or "library"
    columns: int
    outer: int  # columns; 0 stands for products of a library


def choose(n_neurons, gamma, precision, device):
    """The fastest that fits; on a CPU, where the interpreter runs, that of a large card."""
    device = torch.device(device)
    limit, capability = math.inf, (9, 0)
    if device.type == "cuda":
        limit, capability = _card(device)
    return choose_for(n_neurons, gamma, precision, limit, capability)


def choose_for(n_neurons, gamma, precision, limit, capability):
    """`choose` for a card with so much shared memory a program, in bytes."""
    kind, block = precision == "float32", 64 if n_neurons <= 64 else 128
    family = capability[0] if capability[0] in TILED_NEEDS else 8
    outer = _largest(OUTER_NEEDS[family], block, kind, limit)
    if family == 10 and block == 128 and kind:
        outer = 0  # the compiler makes an empty kernel of it
    if gamma <= FLOAT16_GAMMA:
        for name, most, needs, own in (
            ("resident", RESIDENT, RESIDENT_NEEDS, block),
            ("tiled", TILED, TILED_NEEDS[family], 128),
        ):
            columns = _largest(needs, own, kind, limit)
            if n_neurons <= most and columns:
                return Choice(name, columns, outer)
    return Choice("library", 0, outer)


def _largest(needs, block, kind, limit):
    """Tile that fits; 0 if none does."""
    fitting = [
        columns
        for (cells, columns), need in needs.items()
        if cells == block and need[kind] <= limit
    ]
    return max(fitting, default=0)


def runs_on(device):
    """Whether the kernels run on a card; others get products of a library, step by step."""
    return torch.version.hip is None and _card(torch.device(device))[1] >= OLDEST


@lru_cache(16)
def _card(device):
    """Shared memory that a program may ask for, and compute capability."""
    properties = torch.cuda.get_device_properties(device)
    capability = (properties.major, properties.minor)
    usual = CARDS.get(capability, min(CARDS.values()))
    return getattr(properties, "shared_memory_per_block_optin", usual), capability
