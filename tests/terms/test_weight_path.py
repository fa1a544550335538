"""Which weights are in force when."""

import pytest
from torch import nn

from imex_experiments.terms.weight_path import StepwisePath


def test_stepwise_path_holds_its_weights_over_each_step() -> None:
    path = StepwisePath(lambda: nn.Linear(1, 1), (0.0, 0.5, 2.0, 2.25))
    assert len(path) == 3
    for t, k in [(0.0, 0), (0.49, 0), (0.5, 1), (1.99, 1), (2.0, 2), (2.25, 2)]:
        assert path.at(t) is path[k]


@pytest.mark.parametrize("t", [-0.1, 2.3, float("nan")])
def test_times_outside_of_the_grid_are_refused(t: float) -> None:
    with pytest.raises(ValueError, match="must lie in"):
        StepwisePath(lambda: nn.Linear(1, 1), (0.0, 2.25)).at(t)
