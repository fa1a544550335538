"""Statistics over seeds and paired differences, and what cannot be compared."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sweep_folders import make_job

from imex_experiments.errors import CheckpointError, ConfigError, RunError
from imex_experiments.results import runs_table
from imex_experiments.results.comparison import Comparison, compare
from imex_experiments.results.figures import pictures
from imex_experiments.results.statistics import summarise
from imex_experiments.results.table import CONFIGURED, ENDED
from imex_experiments.results.text_tables import best, differences, shown

T_975 = {1: 12.706204736432095, 2: 4.302652729911275}
"""Quantiles of Student's t, from a printed table: degrees of freedom -> t."""


def run(model: str, seed: int, score: float | None, **more: Any) -> dict[str, Any]:
    """A finished run with this test score, a failed one for None."""
    facts: dict[str, Any] = {
        "run": f"{more}-{model}-{seed}",
        "folder": "unused",
        "model": model,
        "data": "qtips",
        "integrator": {"resnet": "ForwardEuler"}.get(model, "Imex"),
        "seed": seed,
        "h": 1.0,
        "alpha": 0.0 if model == "resnet" else 1.0,
        "state": "finished" if score is not None else "failed",
        "reason": "",
        "monitor": "val/miou",
        "mode": "max",
        "val/miou": score,
        "test/miou": score,
    }
    return {**facts, **more}


def table(runs: list[dict[str, Any]], keys: tuple[str, ...] = ()) -> pd.DataFrame:
    """The table of such runs; `keys` are the overrides among what was given to them."""
    columns = [*CONFIGURED, *keys, *ENDED, "val/miou", "test/miou"]
    frame = pd.DataFrame(runs).set_index("run").fillna(dict.fromkeys(keys, ""))
    floats = dict.fromkeys(["val/miou", "test/miou"], float)
    return frame[columns].astype({"seed": "Int64", **floats})


def numbers(rows: pd.DataFrame) -> list[tuple[float, float | None, int]]:
    """Mean, sd and number of seeds of each row, None for no sd."""
    found = rows[["mean", "sd", "seeds"]].itertuples(index=False, name=None)
    return [(mean, None if sd != sd else sd, seeds) for mean, sd, seeds in found]


def overall(comparison: Comparison) -> pd.DataFrame:
    return comparison.pairs[comparison.pairs["setting"].isna()]


def test_estimates_are_those_of_the_textbook() -> None:
    """1, 2, 4: mean 7/3, variance ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 7/3."""
    (row,) = summarise(pd.DataFrame({0: [1.0, 2.0, 4.0]})).itertuples()
    assert row.mean == pytest.approx(7 / 3)
    assert row.sd == pytest.approx((7 / 3) ** 0.5)
    half = T_975[2] * (7 / 3 / 3) ** 0.5
    assert (row.low, row.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))
    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 0).confidence_interval(0.95)
    assert (row.low, row.high) == pytest.approx((expected.low, expected.high))


def test_few_values_have_no_spread_and_no_interval() -> None:
    """And equal ones have an interval of no width, which SciPy's would not have."""
    scores = pd.DataFrame(
        {"one": [3.0, None], "none": [None, None], "same": [2.0, 2.0]}
    )
    rows = summarise(scores.astype(float))
    assert numbers(rows.loc[["one"]]) == [(3.0, None, 1)]
    assert rows.loc[["one", "none"], ["sd", "low", "high"]].isna().all(axis=None)
    assert rows.loc["none", "seeds"] == 0
    assert rows.loc["same", ["sd", "low", "high"]].tolist() == [0.0, 2.0, 2.0]


def test_pairs_are_differences_of_the_same_seed() -> None:
    """Seeds move both networks by 10: the difference does not see it."""
    runs = [run("imexnet", s, 10 * s + d) for s, d in ((0, 1.0), (1, 3.0), (2, 5.0))]
    runs += [run("resnet", s, 10.0 * s) for s in (0, 1, 2, 3)]
    (pair,) = compare(table(runs)).pairs.itertuples()
    assert (pair.implicit, pair.explicit) == ("imexnet", "resnet")
    assert (pair.mean, pair.sd, pair.seeds) == (3.0, 2.0, 3)
    half = T_975[2] * 2 / 3**0.5
    assert (pair.low, pair.high) == pytest.approx((3 - half, 3 + half))


def test_networks_without_h_and_alpha_are_compared_and_paired_with_none() -> None:
    runs = [run("imexnet", s, 1.0 + s, h=h) for s in (0, 1) for h in (0.5, 1.0)]
    runs += [run("resnet", s, 0.0, h=h) for s in (0, 1) for h in (0.5, 1.0)]
    runs += [run("mine", s, 3.0 + s, h=None, alpha=None) for s in (0, 1)]
    comparison = compare(table(runs))
    assert [*comparison.settings["model"]] == ["imexnet"] * 2 + ["resnet"] * 2 + [
        "mine"
    ]
    assert shown(comparison).loc[4].to_dict() == {"h": "-", "alpha": "-"}
    assert comparison.estimate("test/miou").loc[4, ["mean", "seeds"]].tolist() == [
        3.5,
        2,
    ]
    assert not comparison.pairs["implicit"].str.contains("mine").any()
    assert not comparison.pairs["explicit"].str.contains("mine").any()
    assert (
        {"heat_map", "learning_curves"} >= pictures(comparison).keys() >= {"heat_map"}
    )


def test_explicit_run_is_the_partner_of_every_alpha_and_its_repeats_are_no_sample() -> (
    None
):
    """resnet swept over alpha three times is the same network thrice: n counts seeds."""
    runs = [
        run("imexnet", seed, score + seed, alpha=alpha)
        for seed in (0, 1)
        for alpha, score in ((1.0, 2.0), (3.0, 4.0))
    ]
    runs += [  # repeats that differ, as nondeterministic arithmetic would let them
        run("resnet", s, float(n), run=f"{n}-{s}") for s in (0, 1) for n in (0, 1, 2)
    ]
    comparison = compare(table(runs))
    assert comparison.settings["model"][0] == "resnet"
    assert numbers(comparison.estimate("test/miou"))[0] == (1.0, 0.0, 2)
    pairs = comparison.pairs.dropna(subset="setting")
    alphas = comparison.settings["alpha"][pairs["setting"]]
    assert dict(zip(alphas, pairs["mean"], strict=True)) == {1.0: 1.5, 3.0: 3.5}
    ((mean, sd, seeds),) = numbers(overall(comparison))
    assert (mean, seeds) == (2.5, 2)
    assert sd == pytest.approx(0.5**0.5)


def test_overall_difference_counts_seeds_and_leaves_incomplete_settings_out() -> None:
    """At alpha = 3 seed 1 failed: what remains is alpha = 1 and 10, averaged by seed."""
    scores = {(0, 1.0): 1.0, (0, 10.0): 3.0, (1, 1.0): 4.0, (1, 10.0): 8.0}
    scores[0, 3.0] = 100.0
    runs = [run("imexnet", s, v, alpha=a) for (s, a), v in scores.items()]
    runs += [run("imexnet", 1, None, alpha=3.0), run("resnet", 0, 0.0)]
    runs += [run("resnet", 1, 0.0)]
    comparison = compare(table(runs))
    (pair,) = overall(comparison).itertuples()
    assert (pair.mean, pair.seeds) == (4.0, 2)  # of 2 and 6
    assert pair.sd == pytest.approx(8**0.5)
    assert (pair.complete, pair.settings) == (2, 3)
    assert differences(comparison).cells["alpha"].iloc[-1] == "2 of 3 settings"


def test_overall_difference_without_a_setting_of_all_seeds_is_none() -> None:
    """Seed 0 has alpha = 1 alone, seed 1 has alpha = 3 alone, alpha = 9 has none."""
    runs = [run("imexnet", s, 1.0, alpha=a) for s, a in ((0, 1.0), (1, 3.0), (2, 9.0))]
    runs += [run("resnet", s, 0.0) for s in (0, 1)]
    comparison = compare(table(runs))
    (pair,) = overall(comparison).itertuples()
    assert (pair.seeds, pair.complete, pair.settings) == (0, 0, 3)
    words = differences(comparison).cells["mean"]
    assert [*words] == ["+1.0000", "+1.0000", "no common seed", "none complete"]


def test_only_equal_settings_make_pairs() -> None:
    """h and other varied overrides must agree; those of L and of the network need not."""
    rate, operator = "optimizer.lr", "model/diffusion"
    runs = [
        run("imexnet", 0, 1.0, **{rate: "1", operator: "a"}),
        run("imexnet", 0, 5.0, **{rate: "1"}, h=2.0),
        run("resnet", 0, 0.0, **{rate: "1", operator: "b"}),
        run("resnet", 0, 0.0, **{rate: "2"}),
    ]
    comparison = compare(table(runs, (operator, rate)))
    assert numbers(comparison.pairs) == [(1.0, None, 1)]
    (row,) = differences(comparison).cells.to_dict("records")
    assert row["95 % interval"] == "none, one seed"


def test_alpha_zero_of_an_implicit_model_is_explicit() -> None:
    runs = [run("imexnet", 0, float(alpha), alpha=float(alpha)) for alpha in (0, 1)]
    (pair,) = compare(table(runs)).pairs.itertuples()
    assert (pair.implicit, pair.explicit) == ("imexnet", "imexnet, alpha = 0")


def test_integrators_of_one_model_are_two_networks() -> None:
    swept = "model/integrator"
    runs = [
        run("net", 0, 2.0, integrator="Imex", **{swept: "imex"}),
        run("net", 0, 1.0, integrator="Euler", alpha=0.0, **{swept: "e"}),
    ]
    (pair,) = compare(table(runs, (swept,))).pairs.itertuples()
    assert (pair.implicit, pair.explicit) == ("net (Imex)", "net (Euler)")


def test_best_is_chosen_on_validation_among_settings_with_most_seeds() -> None:
    def scored(alpha: float, seed: int, val: float, test: float) -> dict[str, Any]:
        scores = {"val/miou": val, "test/miou": test}
        return run("imexnet", seed, 0.0, alpha=float(alpha), **scores)

    runs = [scored(1, s, 0.8, 0.1) for s in (0, 1)]
    runs += [scored(2, s, 0.7, 0.9) for s in (0, 1)]
    runs += [scored(3, 0, 0.99, 0.99), run("imexnet", 1, None, alpha=3.0)]
    (row,) = best(compare(table(runs))).cells.to_dict("records")
    assert row["alpha"] == "1"
    assert row["val/miou"] == "0.8000 ± 0.0000"
    assert row["test/miou"] == "0.1000 ± 0.0000"
    lower = table(runs).assign(mode="min")  # the best of an error is the lowest
    assert best(compare(lower)).cells["alpha"].tolist() == ["2"]


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[pd.DataFrame, pd.DataFrame]:
    scores = st.one_of(st.none(), st.floats(0, 1))
    runs = [
        run(model, seed, draw(scores), alpha=alpha, run=f"{model}-{seed}-{n}")
        for model, alphas in (("imexnet", (1.0, 3.0, 10.0)), ("resnet", (0.0, 0.0)))
        for n, alpha in enumerate(alphas)
        for seed in (0, 1, 2)
    ]
    runs.append(run("imexnet", 9, 0.5))
    return table(runs), table(draw(st.permutations(runs)))


@settings(max_examples=10, deadline=None)
@given(shuffled())
def test_order_of_the_rows_does_not_matter(
    orders: tuple[pd.DataFrame, pd.DataFrame],
) -> None:
    one, other = map(compare, orders)
    pd.testing.assert_frame_equal(one.runs, other.runs)
    pd.testing.assert_series_equal(one.setting, other.setting)
    pd.testing.assert_series_equal(one.best, other.best)
    for mine, theirs in (
        (one.settings, other.settings),
        (one.estimate("val/miou"), other.estimate("val/miou")),
        (one.pairs, other.pairs),
    ):
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_diverged_metric_of_a_finished_run_is_lost_not_averaged(
    tmp_path: Path,
) -> None:
    make_job(tmp_path / "a", seed=0, score=0.5)
    make_job(tmp_path / "b", seed=1, score=float("nan"))
    estimate = compare(runs_table(tmp_path / "a", tmp_path / "b")).estimate("test/miou")
    assert numbers(estimate) == [(0.5, None, 1)]
    assert estimate["lost"].tolist() == [1]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    a, b = make_job(tmp_path / "a"), make_job(tmp_path / "b", state="failed")
    c = make_job(tmp_path / "c", monitor="val/rmse", mode="min")
    cases: list[tuple[list[Path], str | None, type[RunError], str]] = [
        ([b], None, CheckpointError, r"none of 1 runs is finished \(b: failed\)"),
        (
            [a, c],
            None,
            ConfigError,
            r"val/miou in 1 \(such as a\); val/rmse in 1 \(such as c\); compare one task",
        ),
        ([a], "test/moiu", ConfigError, "metric=test/moiu: unknown, .*'test/miou'"),
        ([], None, CheckpointError, "none of 0 runs is finished"),
    ]
    for runs, metric, error, complaint in cases:
        with pytest.raises(error, match=complaint) as caught:
            compare(runs_table(*runs), metric)
        assert "\n" not in str(caught.value)


def test_validation_stands_in_where_there_is_no_test_split(tmp_path: Path) -> None:
    folder = make_job(tmp_path / "a", score=0.25)
    metrics = json.loads((folder / "metrics.json").read_text())
    del metrics["test/miou"]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert compare(runs_table(folder)).metric == "val/miou"
