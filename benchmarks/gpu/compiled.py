"""What the compiler makes of the GPU engine's kernels, for cards that need not be there.

    python benchmarks/gpu/compiled.py --out benchmarks/results/gpu_compiled.json
    python benchmarks/gpu/compiled.py --card 9.0 --precision tf32 --cells 100 --solver euler --check

By default, the kernels of 100 cells in Euler steps are compiled for four cards. --check compiles
them with all that they can do besides (a drive in time, rates, covariances, predictions), and
fails on an empty kernel, on more shared memory than `cards.NEEDS` says, and on spills where the
published workload runs. Of every kernel:

instructions_a_step
    Of a warp, in the innermost loop that multiplies matrices, in the machine code; for 32 columns,
    whatever the tile.
registers, spills, shared
    Registers of a thread, instructions on local memory, and shared memory of a program in bytes.
"""

import argparse
import os
import re
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path
from types import SimpleNamespace

os.environ["TRITON_INTERPRET"] = "0"
sys.path.insert(0, str(Path(__file__).parents[1]))

import triton
from machine import machine, save
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from ssn_estimators.simulation.gpu import cards, kernels, programs

TOOLS = Path(triton.__file__).parent / "backends/nvidia/bin"
TYPES = {
    "seeds": "*i64",
    "ids": "*i32",
    "first_state": "*i32",
    "scratch": "*fp16",
    **dict.fromkeys(["dt", "decay", "kick", "gamma", "rate_scale"], "fp32"),
    **dict.fromkeys([*kernels.COUNTS, "n_cells", "size", "padded_columns"], "i32"),
}
HALVES = {"weights": "*fp16", "noise_factor": "*fp16"}
PLAIN = {"MOVING": False, "RATES": False, "DENSE": False, "COLD": False, "SUMS": True}
PLAIN |= {"WEAK": False, "ANTITHETIC": False}
BURN_IN = {"MEAN": False, "PATH": 0, "TRACK": True}
WINDOW = {"MEAN": True, "PATH": 1, "TRACK": False}


def build(kernel, capability, options, constants):
    """Compile a kernel for a card, and say what came of it."""
    types = TYPES | (HALVES if "forward" in kernel.__name__ else {})
    constants = {name: x for name, x in constants.items() if name in kernel.arg_names}
    signature, attributes = {}, {}
    for i, name in enumerate(kernel.arg_names):
        signature[name] = "constexpr" if name in constants else types.get(name, "*fp32")
        if signature[name].startswith("*") or name == "size":
            attributes[i,] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    target = GPUTarget("cuda", 10 * capability[0] + capability[1], 32)
    compiled = triton.compile(source, target=target, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        instructions = INSTRUCTION.findall(output_of("cuobjdump", "-sass", file.name))
        usage = output_of("cuobjdump", "-res-usage", file.name)
    return {
        "instructions_a_step": len(inner_loop(instructions)) * 32 // constants["COLUMNS"],
        "instructions": len(instructions),
        "registers": int(re.search(r"REG:(\d+)", usage)[1]),
        "spills": sum(name.startswith(("STL", "LDL")) for _, name, _ in instructions),
        "shared": compiled.metadata.shared,
    }


def output_of(tool, *arguments):
    command = [TOOLS / tool, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)([^;]*);")


def inner_loop(instructions):
    """The longest loop that multiplies matrices and has no other such loop in it."""
    places = [int(address, 16) for address, _, _ in instructions]
    loops = []
    for i, (_, name, arguments) in enumerate(instructions):
        target = re.search(r"0x([0-9a-f]+)\s*$", arguments.strip())
        if name.startswith("BRA") and target and int(target[1], 16) < places[i]:
            loops.append((places.index(int(target[1], 16)), i))
    products = [(i, j) for i, j in loops if any("MMA" in x[1] for x in instructions[i : j + 1])]
    inner = [
        (i, j)
        for i, j in products
        if not any((i, j) != (k, m) and i <= k and m <= j for k, m in products)
    ]
    start, stop = max(inner, key=lambda loop: loop[1] - loop[0], default=(0, -1))
    return instructions[start : stop + 1]


def kernels_of(capability, setup, n_cells, everything=False):
    """Kernels, what they are for, tiles and constants."""
    choice = cards.choose_for(n_cells, setup, cards.CARDS[capability], capability)
    heun = setup.solver == "heun"
    block = 64 if n_cells <= 64 and choice.engine != "tiled" else 128
    common = PLAIN | {"SOLVER": setup.solver, "HEUN": heun, "BLOCK": block}
    common["POWER"] = programs.power_of(setup)
    common["PIECES"] = 2 if setup.precision == "float32" else 1
    if everything:
        common |= {"MOVING": True, "RATES": True, "DENSE": True}
    if choice.engine != "library":
        suffix = "_tiled" if choice.engine == "tiled" else ""
        forward, adjoint = (getattr(kernels, name + suffix) for name in ("forward", "adjoint"))
        window = WINDOW | {"PATH": 2 if heun and everything else 1}
        yield forward, "burn-in", choice.forward, common | BURN_IN | {"RATES": False}
        yield forward, "window", choice.forward, common | window
        yield adjoint, "", choice.adjoint, common
    if choice.outer:
        yield kernels.outer, "", choice.outer, common


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--card", nargs="*", default=[f"{x}.{y}" for x, y in cards.CARDS])
    parser.add_argument("--precision", nargs="*", default=["tf32", "float32"])
    parser.add_argument("--cells", nargs="*", type=int, default=[100])
    parser.add_argument("--solver", nargs="*", default=["euler"])
    parser.add_argument("--gamma", type=float, default=2.0)
    parser.add_argument("--columns", type=int, help="of all tiles, instead of the usual ones")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--out")
    args = parser.parse_args()
    cases = product(args.card, args.precision, args.cells, args.solver, [False, True])
    found, faults = [], []
    for card, precision, cells, solver, everything in cases:
        if everything and not args.check:
            continue
        capability = tuple(map(int, card.split(".")))
        setup = SimpleNamespace(gamma=args.gamma, precision=precision, solver=solver)
        for kernel, stretch, tile, constants in kernels_of(capability, setup, cells, everything):
            name = kernel.__name__
            if args.columns:
                tile = tile._replace(columns=args.columns)
            options = {x: value for x, value in tile.options().items() if x.islower()}
            result = build(kernel, capability, options, constants | tile.options())
            row = {"card": card, "precision": precision, "cells": cells, "solver": solver}
            row |= {"kernel": f"{name} {stretch}".strip(), "everything": everything}
            row |= {"columns": tile.columns, "warps": tile.warps, **result}
            found.append(row)
            print(*row.values(), flush=True)
            block = constants["BLOCK"]
            need = cards.shared_memory(name, block, tile.columns, setup, capability)
            if result["instructions"] < 300:
                faults.append(f"{row}: an empty kernel")
            if not args.columns and result["shared"] > need:
                faults.append(f"{row}: more shared memory than {need}")
            published = card == "9.0" and solver == "euler" and not everything
            if result["spills"] and published and "tiled" not in name:
                faults.append(f"{row}: spills")
    save({"machine": machine(), "triton": triton.__version__, "kernels": found}, args.out)
    if args.check and faults:
        sys.exit("\n".join(faults))


if __name__ == "__main__":
    main()
