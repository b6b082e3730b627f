"""Does what a column of a product becomes, to the last bit, depend on where it stands?

    python benchmarks/columns.py --out benchmarks/results/columns.json

Of the BLAS that the compiled loops call, for each of its kernels that this processor can run: how
fast products of 50 columns are; in how many ways the same column is rounded at the places of
products of many widths, of multiples of 16 columns, and of 16 columns alone; and what 50 columns
take 16 at a time, and padded to 64, over what they take as they are. Times are medians of several
rounds on one thread, in which the widths take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from machine import machine, save

KERNELS = ("SkylakeX", "Haswell")  # AVX-512, and AVX2
SIZES = (40, 100, 256, 1024)
ANY, WHOLE = (*range(1, 128, 7), 128, 200), (16, 32, 48, 64, 96, 128, 256, 512)
COLUMNS = 50  # of one of two threads that share 100
ROUNDS, MULTIPLICATIONS = 15, 1e8


def outcome():
    """Of the kernels that this process has."""
    import numba
    import numpy as np
    from threadpoolctl import threadpool_info

    @numba.njit
    def products(a, b, out, n):
        for _ in range(n):
            np.dot(a, b, out)

    rng = np.random.default_rng(0)

    def ways(n, widths):
        weights = rng.standard_normal((n, n)).astype(np.float32)
        column = rng.standard_normal((n, 1)).astype(np.float32)
        found = set()
        for width in widths:
            out = np.empty((n, width), np.float32)
            products(weights, np.repeat(column, width, 1), out, 1)
            found |= {out[:, i].tobytes() for i in range(width)}
        return len(found)

    def seconds(n, widths):
        """Of each width, per column."""
        weights = rng.standard_normal((n, n)).astype(np.float32)
        taken = {width: [] for width in widths}
        for _ in range(ROUNDS + 1):
            for width, own in taken.items():
                b = rng.standard_normal((n, width)).astype(np.float32)
                out, repeats = np.empty_like(b), int(MULTIPLICATIONS / (n * n * width)) + 1
                start = time.perf_counter()
                products(weights, b, out, repeats)
                own.append((time.perf_counter() - start) / repeats / width)
        return {width: own[1:] for width, own in taken.items()}

    found = {}
    padded = -(-COLUMNS // 16) * 16
    for n in SIZES:
        narrow, plain, wide = seconds(n, (16, COLUMNS, padded)).values()
        found[n] = {
            "GFLOP/s": 2e-9 * n * n / median(plain),
            "ways, any width": ways(n, ANY),
            "ways, multiples of 16": ways(n, WHOLE),
            "ways, 16": ways(n, (16,)),
            "16 at a time": median(a / b for a, b in zip(narrow, plain, strict=True)),
            "padded": padded / COLUMNS * median(a / b for a, b in zip(wide, plain, strict=True)),
        }
    libraries = [x for x in threadpool_info() if x["user_api"] == "blas"]
    return {"kernels": sorted({x["architecture"] for x in libraries}), "sizes": found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        print(json.dumps(outcome()))
        return
    results = {"machine": machine(), "columns": COLUMNS, "kernels": {}}
    for kernel in KERNELS:
        environment = os.environ | {"OPENBLAS_CORETYPE": kernel, "OPENBLAS_NUM_THREADS": "1"}
        environment.pop("OPENBLAS_L2_SIZE", None)
        command = [sys.executable, __file__, "--child"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        own = json.loads(done.stdout)
        if own["kernels"] != [kernel]:
            print(f"{kernel}: not to be had here")
            continue
        results["kernels"][kernel] = own["sizes"]
        print(f"\n{kernel:10s}" + "".join(f"{name:>24s}" for name in own["sizes"][str(SIZES[0])]))
        for n, row in own["sizes"].items():
            print(f"{n:>4s} cells" + "".join(f"{value:24.3g}" for value in row.values()))
    save(results, args.out)


if __name__ == "__main__":
    main()
