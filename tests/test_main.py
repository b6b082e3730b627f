import sys

import numpy as np
import pytest

from ssn_estimators.__main__ import main, table
from ssn_estimators.inspection.stability import StabilityReport


def result(accuracy):
    report = StabilityReport(0.0, np.array([0.5, 1.0]), np.array([1.0, 1.0]), 10, 500.0)
    return {"accuracy": {"SSN": accuracy}, "seconds": {"SSN": 2.0}, "stability": report}


def test_table_averages_over_folds():
    rows = [line.split() for line in table([result(0.9), result(1.0)]).splitlines() if line]
    assert ["SSN", "0.9500", "+-0.050", "2.00"] in rows
    assert ["shuffled", "0.750"] in rows


@pytest.mark.parametrize("arguments", [["--data", "cifar"], ["--mnist", "no-such-file.npz"]])
def test_bad_arguments_end_before_work_starts(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert arguments[1] in capsys.readouterr().err


def test_what_is_missing_is_noticed_before_work_starts(tmp_path, capsys, monkeypatch):
    def refused(*arguments):
        with pytest.raises(SystemExit) as stop:
            main(list(map(str, arguments)))
        assert stop.value.code == 2
        return capsys.readouterr().err

    file = tmp_path / "file"
    file.write_text("not a folder")
    assert "cannot write to" in refused("--out", file)
    assert "is not an npz file" in refused("--mnist", file)
    np.savez_compressed(tmp_path / "bomb.npz", x_train=np.zeros(10**6))
    with monkeypatch.context() as patch:
        patch.setattr("ssn_estimators.__main__.MOST_BYTES", 10**6)
        assert "unpacked it has" in refused("--mnist", tmp_path / "bomb.npz")
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    assert "x_train is not a file" in refused("--mnist", tmp_path / "other.npz")
    small = {"x_train": np.zeros((2, 5, 5)), "y_train": [0, 1]}
    np.savez(tmp_path / "small.npz", **small, x_test=np.zeros((2, 5, 5)), y_test=[0, 1])
    assert "images of shape" in refused("--mnist", tmp_path / "small.npz")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "pip install" in refused("--out", tmp_path)


@pytest.mark.slow
def test_quick_look_prints_the_table_and_writes_figures(tmp_path, capfd):
    main(["--quick", "--jobs", "1", "--out", str(tmp_path)])
    printed = capfd.readouterr().out
    assert "30 E +    8 I" in printed
    assert "logistic regression" in printed
    names = {"growth.png", "potentials.png", "stability.png", "weights.png", "table.txt"}
    assert {path.name for path in tmp_path.iterdir()} == names


def test_local_copy_of_mnist(tmp_path, capfd):
    rng = np.random.RandomState(0)
    path = tmp_path / "mnist.npz"
    labels = np.arange(60) % 3
    images = rng.randint(60, size=(60, 28, 28)) + 60 * labels[:, None, None]
    np.savez(path, x_train=images, y_train=labels, x_test=images, y_test=labels)
    main(["--mnist", str(path), "--quick", "--jobs", "1"])
    assert "50 E +   13 I" in capfd.readouterr().out
