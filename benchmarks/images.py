"""MNIST and CIFAR-10 from the files that the benchmarks are given."""

import io
import pickle
from itertools import pairwise

import numpy as np

__all__ = ["cifar10", "mnist"]


def mnist(folder, part):
    """Images of shape (n, 784) between 0 and 1, and labels; part is "train" or "test"."""
    with np.load(folder / "mnist.npz") as data:
        X, y = data[f"x_{part}"], data[f"y_{part}"].astype(int)
    return X.reshape(-1, 784).astype(np.float32) / 255, y


def cifar10(folder, part):
    """Images of shape (n, 32, 32, 3), uint8, and labels.

    From the published batches, or from cifar10_train.npz and cifar10_test.npz, each with all images
    as JPEG files one after the other (`jpeg`, bytes) and where they begin and end (`offsets`).
    """
    if (folder / "test_batch").exists():
        names = ["test_batch"] if part == "test" else [f"data_batch_{i}" for i in range(1, 6)]
        batches = [pickle.loads((folder / n).read_bytes(), encoding="bytes") for n in names]
        colours = np.concatenate([batch[b"data"] for batch in batches]).reshape(-1, 3, 32, 32)
        return colours.transpose(0, 2, 3, 1), np.concatenate([b[b"labels"] for b in batches])
    from PIL import Image

    with np.load(folder / f"cifar10_{part}.npz") as data:
        jpeg, ends, y = data["jpeg"].tobytes(), data["offsets"], data["y"].astype(int)
    files = (io.BytesIO(jpeg[a:b]) for a, b in pairwise(ends))
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files]), y
