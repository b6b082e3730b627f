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


class Tile(NamedTuple):
    """Columns of a program, and how it is compiled."""

    columns: int
    batch: int | None = None  # columns of weights that pass at a time
    stages: int | None = None  # of loads ahead of their use
    registers: int | None = None  # of a thread, at most
    warps: int = 8

    def options(self):
        """Of the launch of a kernel."""
        names = {"batch": "BATCH", "stages": "num_stages", "registers": "maxnreg"}
        given = {names[name]: getattr(self, name) for name in names}
        given = {name: value for name, value in given.items() if value is not None}
        return {"COLUMNS": self.columns, "num_warps": self.warps, **given}


# By kernel and precision, or for Heun's two stages, the first that fits is taken
TILED_FORWARD, TILED_ADJOINT = [Tile(64, 64), Tile(32, 64)], [Tile(64, 32), Tile(32, 32)]
OUTER = [Tile(32, stages=1), Tile(16, stages=1)]
TILES = {
    "forward": {"tf32": [Tile(16)], "float32": [Tile(32), Tile(16)], "heun": [Tile(16)]},
    "adjoint": {"tf32": [Tile(16)], "float32": [Tile(32), Tile(16)], "heun": [Tile(16)]},
    "forward_tiled": {"tf32": TILED_FORWARD, "float32": TILED_FORWARD},
    "adjoint_tiled": {"tf32": TILED_ADJOINT, "float32": TILED_ADJOINT},
    "outer": {"tf32": OUTER, "float32": OUTER, "heun": OUTER[1:]},
}
# Bytes of shared memory of a program, at most, as Triton compiles it (tests/simulation/test_gpu.py
# compiles it again): by first number of the compute capability, kernel, and cells and columns of a
# block; under TF32 and in float32, then the same for Heun. None where registers do not suffice, or
# the compiler makes nothing of it. Other cards are as 8: there, tensor cores read registers.
NEEDS = {
    8: {
        "forward": {
            (64, 16): (20_480, 36_864, 28_672, 45_056),
            (64, 32): (None, 40_960, None, None),
            (128, 16): (73_728, 139_264, 90_112, 155_648),
        },
        "adjoint": {
            (64, 16): (28_672, 49_152, 36_864, 57_344),
            (64, 32): (None, 65_536, None, None),
            (128, 16): (90_112, 163_840, 106_496, 180_224),
        },
        "forward_tiled": {
            (128, 32): (40_960, 81_920, 40_960, 81_920),
            (128, 64): (49_152, 98_304, 49_152, 98_304),
        },
        "adjoint_tiled": {
            (128, 32): (40_960, 73_728, 40_960, 73_728),
            (128, 64): (49_152, 81_920, 49_152, 81_920),
        },
        "outer": {
            (64, 16): (16_384, 16_384, 16_384, 16_384),
            (64, 32): (16_384, 16_384, None, None),
            (128, 16): (65_536, 65_536, 65_536, 65_536),
        },
    },
    9: {
        "forward": {
            (64, 16): (20_480, 38_912, 28_672, 47_104),
            (64, 32): (None, 40_960, None, None),
            (128, 16): (73_728, 139_264, 90_112, 155_648),
            (128, 32): (None, 147_456, None, None),
        },
        "adjoint": {
            (64, 16): (28_672, 49_152, 36_864, 57_344),
            (64, 32): (None, 65_536, None, None),
            (128, 16): (90_112, 163_840, 106_496, 180_224),
            (128, 32): (None, 196_608, None, None),
        },
        "forward_tiled": {
            (128, 32): (61_440, 122_880, 61_440, 122_880),
            (128, 64): (73_728, 147_456, 73_728, 147_456),
        },
        "adjoint_tiled": {
            (128, 32): (61_440, 114_688, 61_440, 114_688),
            (128, 64): (73_728, 131_072, 73_728, 131_072),
        },
        "outer": {
            (64, 16): (16_384, 16_384, 16_384, 16_384),
            (64, 32): (16_384, 16_384, None, None),
            (128, 16): (65_536, 65_536, 65_536, 65_536),
            (128, 32): (65_536, 65_536, None, None),
        },
    },
    10: {
        "forward": {
            (64, 16): (20_480, 36_872, 28_672, 45_064),
            (64, 32): (None, 40_968, None, None),
            (128, 16): (73_728, 139_272, 90_112, 155_656),
            (128, 32): (None, 147_464, None, None),
        },
        "adjoint": {
            (64, 16): (28_680, 49_160, 36_872, 57_352),
            (64, 32): (None, 65_544, None, None),
            (128, 16): (90_120, 163_848, 106_504, 180_232),
            (128, 32): (None, 196_616, None, None),
        },
        "forward_tiled": {
            (128, 32): (61_456, 147_504, 61_456, 147_504),
            (128, 64): (73_744, 180_272, 73_744, 180_272),
        },
        "adjoint_tiled": {
            (128, 32): (61_456, 98_336, 61_456, 98_336),
            (128, 64): (73_744, 114_720, 73_744, 114_720),
        },
        "outer": {
            (64, 16): (16_384, 16_384, 16_384, 16_384),
            (64, 32): (16_384, 16_392, None, None),
            (128, 16): (65_536, None, 65_536, None),
            (128, 32): (65_536, None, None, None),
        },
    },
}
# Of cards by their compute capability, in bytes a program: A100, H100, B200, RTX 50
CARDS = {(8, 0): 166_912, (9, 0): 232_448, (10, 0): 232_448, (12, 0): 101_376}


class Choice(NamedTuple):
    """Which engine, and the tiles of its kernels."""

    engine: str  # "resident", "tiled" or "library"
    forward: Tile | None = None
    adjoint: Tile | None = None
    outer: Tile | None = None  # else products of a library


def choose(n_neurons, setup, device, engine=None):
    """The fastest that fits, or the best of an engine; where the interpreter runs, all fit."""
    device = torch.device(device)
    limit, capability = math.inf, (9, 0)
    if device.type == "cuda":
        limit, capability = _card(device)
    return choose_for(n_neurons, setup, limit, capability, engine)


def choose_for(n_neurons, setup, limit, capability, engine=None):
    """`choose` for a card with so much shared memory a program, in bytes."""

    def first(kernel, block):
        """Tile that fits, None if none does."""
        kinds = TILES[kernel]
        for tile in kinds.get(setup.solver) or kinds[setup.precision]:
            need = shared_memory(kernel, block, tile.columns, setup, capability)
            if need is not None and need <= limit:
                return tile
        return None

    block = 64 if n_neurons <= 64 else 128
    halves = not torch.is_tensor(setup.gamma) and setup.gamma <= FLOAT16_GAMMA
    outer = first("outer", block) if halves else None
    for name, most, suffix, own in (
        ("resident", RESIDENT, "", block),
        ("tiled", TILED, "_tiled", 128),
    ):
        tiles = [first(kernel + suffix, own) for kernel in ("forward", "adjoint")]
        usual = n_neurons <= most and halves and all(tiles)
        if usual if engine is None else engine == name:
            return Choice(name, *tiles, outer)
    return Choice("library", outer=outer)


def shared_memory(kernel, block, columns, setup, capability):
    """Bytes that a program needs at most; None if it is not to run there."""
    family = capability[0] if capability[0] in NEEDS else 8
    needs = NEEDS[family][kernel].get((block, columns), 4 * (None,))
    return needs[2 * (setup.solver == "heun") + (setup.precision == "float32")]


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
