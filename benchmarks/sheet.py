"""A sheet of 75 x 75 x 2 cells with sparse weights: time, memory, and size tuning.

    python benchmarks/sheet.py --out benchmarks/results/sheet.json [--data FOLDER]

``circuits.obeid_2021_sheet``; each stimulus runs in a process of its own, whose largest
resident memory is that of all: imports, weights and 200 ms of simulation. `--data` takes a folder
with `field_v1_map.npz`, the map and the cells of the authors; otherwise the map is a random one.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from machine import machine, save

SIDES = [2, 4, 6, 8, 12, 16, 24, 40]  # cells


def the_map(data):
    """Preferred orientations, or None for those of the circuit, and a position."""
    if data is None:
        return None, None
    found = np.load(Path(data) / "field_v1_map.npz")
    row, column = found["sample_cells"][0]
    return found["orientation"].ravel(), 75 * int(row) + int(column)


def one(side, data):
    """In a process of its own."""
    begin = time.perf_counter()
    from ssn_estimators import circuits, simulate

    orientation, place = the_map(data)
    made = time.perf_counter()
    circuit, space, drive_of = circuits.obeid_2021_sheet(orientation)
    start = time.perf_counter()
    settings = {"burn_in": 199.0, "duration": 1.0, "n_trials": 1, "solver": "euler"}
    drive = drive_of(16.4, side, place)
    place = space.n_positions // 2 if place is None else place
    found = simulate(circuit, drive, covariance=False, **settings)
    end = time.perf_counter()
    return {
        "side": side,
        "E": float(found.rates[0, place]),
        "I": float(found.rates[0, space.n_positions + place]),
        "synapses": int(circuit.weights.nnz),
        "seconds": {"import": made - begin, "weights": start - made, "simulation": end - start},
        "largest memory in GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--out")
    parser.add_argument("--data")
    parser.add_argument("--side", type=float)
    arguments = parser.parse_args()
    if arguments.side is not None:
        print(json.dumps(one(arguments.side, arguments.data)))
        return
    rows = []
    for side in SIDES:
        command = [sys.executable, __file__, "--side", str(side)]
        command += ["--data", arguments.data] if arguments.data else []
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        rows.append(json.loads(done.stdout))
        print(rows[-1], flush=True)
    result = {"machine": machine(), "map": "of the authors" if arguments.data else "random"}
    if arguments.out:
        save(result | {"stimuli": rows}, arguments.out)


if __name__ == "__main__":
    main()
