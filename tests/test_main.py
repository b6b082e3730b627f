import numpy as np
import pytest

from ssn_estimators.__main__ import main, table
from ssn_estimators.stability import StabilityReport


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
