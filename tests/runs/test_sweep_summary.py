"""What is read from run folders, and the statistics that are made of it."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from omegaconf import OmegaConf
from scipy import stats
from sweep_folders import make_job, make_sweep

from imex_experiments.runs.comparison import Comparison, Pair, compare
from imex_experiments.runs.errors import CheckpointError, ConfigError, RunError
from imex_experiments.runs.files import write_table
from imex_experiments.runs.groups import Estimate
from imex_experiments.runs.sweep_summary import Job, collect_jobs, result_rows
from imex_experiments.runs.sweep_tables import best, commands, differences, failures

T_975 = {1: 12.706204736432095, 2: 4.302652729911275}
"""Quantiles of Student's t, from a printed table: degrees of freedom -> t."""


def job(model: str, seed: int, score: float | None, **more: object) -> Job:
    """A finished job with this test score, a failed one for None."""
    facts: dict[str, object] = {
        "run": f"{more}-{model}-{seed}",
        "folder": Path("unused"),
        "model": model,
        "integrator": {"resnet": "ForwardEuler"}.get(model, "Imex"),
        "data": "qtips",
        "seed": seed,
        "h": 1.0,
        "alpha": 0.0 if model == "resnet" else 1.0,
        "monitor": "val/miou",
        "mode": "max",
        "state": "finished" if score is not None else "failed",
        "metrics": {} if score is None else {"val/miou": score, "test/miou": score},
    }
    return Job(**{**facts, **more})  # type: ignore[arg-type]


def overall(comparison: Comparison) -> Pair:
    (pair,) = [pair for pair in comparison.pairs if pair.setting is None]
    return pair


def test_estimates_are_those_of_the_textbook() -> None:
    """1, 2, 4: mean 7/3, variance ((4/3)^2 + (1/3)^2 + (5/3)^2) / 2 = 7/3."""
    estimate = Estimate.of([1.0, 2.0, 4.0])
    assert estimate.mean == pytest.approx(7 / 3)
    assert estimate.sd == pytest.approx((7 / 3) ** 0.5)
    half = T_975[2] * (7 / 3 / 3) ** 0.5
    assert estimate.interval == pytest.approx((7 / 3 - half, 7 / 3 + half))
    expected = stats.ttest_1samp([1.0, 2.0, 4.0], 0).confidence_interval(0.95)
    assert estimate.interval == pytest.approx((expected.low, expected.high))


def test_one_value_has_no_spread_and_no_interval() -> None:
    assert Estimate.of([3.0]) == Estimate(3.0, None, 1)
    assert Estimate.of([3.0]).interval is None


def test_pairs_are_differences_of_the_same_seed() -> None:
    """Seeds move both networks by 10: the difference does not see it."""
    jobs = [job("imexnet", s, 10 * s + d) for s, d in ((0, 1.0), (1, 3.0), (2, 5.0))]
    jobs += [job("resnet", s, 10.0 * s) for s in (0, 1, 2, 3)]
    (pair,) = compare(jobs).pairs
    assert (pair.implicit, pair.explicit) == ("imexnet", "resnet")
    assert pair.difference == Estimate(3.0, 2.0, 3)
    half = T_975[2] * 2 / 3**0.5
    assert pair.difference.interval == pytest.approx((3 - half, 3 + half))


def test_explicit_run_is_the_partner_of_every_alpha_and_its_repeats_are_no_sample() -> (
    None
):
    """resnet swept over alpha three times is the same network thrice: n counts seeds."""
    jobs = [
        job("imexnet", seed, score + seed, alpha=alpha)
        for seed in (0, 1)
        for alpha, score in ((1.0, 2.0), (3.0, 4.0))
    ]
    jobs += [  # repeats that differ, as nondeterministic arithmetic would let them
        job("resnet", s, float(n), run=f"{n}-{s}") for s in (0, 1) for n in (0, 1, 2)
    ]
    comparison = compare(jobs)
    explicit = comparison.groups[0]
    assert explicit.setting.network == "resnet"
    assert explicit.estimate("test/miou") == Estimate(1.0, 0.0, 2)
    at = {p.setting.alpha: p.difference for p in comparison.pairs if p.setting}
    assert {alpha: d.mean for alpha, d in at.items() if d} == {1.0: 1.5, 3.0: 3.5}
    assert overall(comparison).difference == Estimate(2.5, 0.5**0.5, 2)


def test_overall_difference_counts_seeds_and_leaves_incomplete_settings_out() -> None:
    """At alpha = 3 seed 1 failed: what remains is alpha = 1 and 10, averaged by seed."""
    scores = {(0, 1.0): 1.0, (0, 10.0): 3.0, (1, 1.0): 4.0, (1, 10.0): 8.0}
    scores[0, 3.0] = 100.0
    jobs = [job("imexnet", s, v, alpha=a) for (s, a), v in scores.items()]
    jobs += [job("imexnet", 1, None, alpha=3.0), job("resnet", 0, 0.0)]
    jobs += [job("resnet", 1, 0.0)]
    pair = overall(compare(jobs))
    assert pair.difference == Estimate(4.0, 8**0.5, 2)  # of 2 and 6
    assert (pair.complete, pair.settings) == (2, 3)
    assert differences(compare(jobs)).rows[-1]["alpha"] == "2 of 3 settings"


def test_only_equal_settings_make_pairs() -> None:
    """h and other varied overrides must agree; those of L and of the network need not."""
    jobs = [
        job("imexnet", 0, 1.0, overrides={"optimizer.lr": "1", "model/diffusion": "a"}),
        job("imexnet", 0, 5.0, overrides={"optimizer.lr": "1"}, h=2.0),
        job("resnet", 0, 0.0, overrides={"optimizer.lr": "1", "model/diffusion": "b"}),
        job("resnet", 0, 0.0, overrides={"optimizer.lr": "2"}),
    ]
    (pair,) = compare(jobs).pairs
    assert pair.difference == Estimate(1.0, None, 1)
    assert differences(compare(jobs)).rows[0]["95 % interval"] == "none, one seed"


def test_alpha_zero_of_an_implicit_model_is_explicit() -> None:
    jobs = [job("imexnet", 0, float(alpha), alpha=float(alpha)) for alpha in (0, 1)]
    (pair,) = compare(jobs).pairs
    assert (pair.implicit, pair.explicit) == ("imexnet", "imexnet, alpha = 0")


def test_integrators_of_one_model_are_two_networks() -> None:
    swept = "model/integrator"
    jobs = [
        job("net", 0, 2.0, integrator="Imex", overrides={swept: "imex"}),
        job("net", 0, 1.0, integrator="Euler", overrides={swept: "e"}, alpha=0.0),
    ]
    (pair,) = compare(jobs).pairs
    assert (pair.implicit, pair.explicit) == ("net (Imex)", "net (Euler)")


def test_best_is_chosen_on_validation_among_settings_with_most_seeds() -> None:
    def scored(alpha: float, seed: int, val: float, test: float) -> Job:
        scores = {"val/miou": val, "test/miou": test}
        return job("imexnet", seed, 0.0, alpha=alpha, metrics=scores)

    jobs = [scored(1, s, 0.8, 0.1) for s in (0, 1)]
    jobs += [scored(2, s, 0.7, 0.9) for s in (0, 1)]
    jobs += [scored(3, 0, 0.99, 0.99), job("imexnet", 1, None, alpha=3.0)]
    (row,) = best(compare(jobs)).rows
    assert row["alpha"] == "1"
    assert row["val/miou"] == "0.8000 ± 0.0000"
    assert row["test/miou"] == "0.1000 ± 0.0000"
    lower = [
        Job(**{**vars(j), "mode": "min"})  # the best of an error is the lowest
        for j in jobs
    ]
    assert best(compare(lower)).rows[0]["alpha"] == "2"


@st.composite
def shuffled(draw: st.DrawFn) -> tuple[Sequence[Job], Sequence[Job]]:
    scores = st.one_of(st.none(), st.floats(0, 1))
    jobs = [
        job(model, seed, draw(scores), alpha=alpha, run=f"{model}-{seed}-{n}")
        for model, alphas in (("imexnet", (1.0, 3.0, 10.0)), ("resnet", (0.0, 0.0)))
        for n, alpha in enumerate(alphas)
        for seed in (0, 1, 2)
    ]
    jobs.append(job("imexnet", 9, 0.5))
    return jobs, draw(st.permutations(jobs))


@given(shuffled())
def test_order_of_the_rows_does_not_matter(
    orders: tuple[Sequence[Job], Sequence[Job]],
) -> None:
    one, other = map(compare, orders)
    assert one.groups == other.groups
    assert one.best == other.best
    assert one.pairs == other.pairs


def test_jobs_are_read_in_natural_order_with_states_and_reasons(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        make_job(tmp_path / f"{number}_seed={number}", seed=number, score=number / 10)
    make_job(tmp_path / "3_model=resnet", model="resnet", alpha=5, state="running")
    make_job(tmp_path / "4_model/layer=x", alpha=5, state="begun")  # a / in its name
    make_job(tmp_path / "11_seed=1", state="failed")
    (tmp_path / "multirun.yaml").write_text("{}")
    rows = result_rows(collect_jobs([tmp_path]))
    told = [(row["run"], row["state"], row["alpha"], row["test/miou"]) for row in rows]
    assert told == [
        ("0_seed=0", "finished", 1.0, 0.0),
        ("2_seed=2", "finished", 1.0, 0.2),
        ("3_model=resnet", "running", 0.0, None),
        ("4_model/layer=x", "failed", 5.0, None),
        ("10_seed=10", "finished", 1.0, 1.0),
        ("11_seed=1", "failed", 1.0, None),
    ]
    reasons = [row["reason"] for row in rows if row["reason"]]
    assert reasons == [
        "still running, or killed",
        "died before it wrote status.json",
        "loss is nan at step 3",
    ]


def test_varied_overrides_become_columns_with_the_value_in_force(
    tmp_path: Path,
) -> None:
    """An override that one run was not given counts with its configured value."""
    make_job(tmp_path / "a", words=("optimizer.lr=0.1", "trainer.max_epochs=2"))
    make_job(tmp_path / "b", words=("optimizer.lr=0.2", "trainer.max_epochs=2"))
    c = make_job(tmp_path / "c")  # by default what run a was given
    config = OmegaConf.merge(
        OmegaConf.load(c / ".hydra/config.yaml"),
        {"optimizer": {"lr": 0.1}, "trainer": {"max_epochs": 2}},
    )
    OmegaConf.save(config, c / ".hydra/config.yaml")
    rows = result_rows(collect_jobs([tmp_path / name for name in "cbaa"]))
    assert [(row["run"], row["optimizer.lr"]) for row in rows] == [
        ("a", "0.1"),
        ("b", "0.2"),
        ("c", "0.1"),
    ]
    assert "trainer.max_epochs" not in rows[0]


def test_results_are_byte_equal_whenever_and_in_whatever_order_jobs_ran(
    tmp_path: Path,
) -> None:
    jobs = [
        {"model": model, "seed": seed, "score": 0.1 + seed / 3}
        for model in ("imexnet", "resnet")
        for seed in (0, 1)
    ]
    texts = []
    for name, seconds in (("first", 1.25), ("later", 99.5)):
        sweep = tmp_path / name
        made = [job | {"train_seconds": seconds} for job in jobs]
        made[3] |= {"state": "failed"}
        make_sweep(sweep, made, [])
        write_table(tmp_path / f"{name}.csv", result_rows(collect_jobs([sweep])))
        texts.append((tmp_path / f"{name}.csv").read_bytes())
    assert texts[0] == texts[1]
    assert b"seconds" not in texts[0]
    rows = list(csv.DictReader(texts[0].decode().splitlines()))
    assert rows[1]["test/miou"] == repr(0.1 + 1 / 3)
    assert rows[3]["reason"] == "loss is nan at step 3"


@pytest.mark.parametrize(
    "damage",
    [
        ("metrics.json", '{"val/miou": 0.'),
        ("metrics.json", "[1, 2]"),
        ("metrics.json", '{"val/miou": "high"}'),
        ("metrics.json", None),
        ("status.json", "not JSON"),
        ("status.json", '{"state": "finished"}'),
        (".hydra/config.yaml", "a: [b"),
        (".hydra/config.yaml", "a: 1"),
    ],
)
def test_corrupt_run_is_named_and_skipped_and_the_rest_goes_on(
    damage: tuple[str, str | None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    make_sweep(tmp_path, [{"seed": 0}, {"seed": 1, "score": 0.7}], [])
    name, content = damage
    if content is None:
        (tmp_path / "0_seed=0" / name).unlink()
    else:
        (tmp_path / "0_seed=0" / name).write_text(content)
    comparison = compare(collect_jobs([tmp_path]))
    (warning,) = caplog.messages
    assert "0_seed=0" in warning
    assert warning.isprintable()
    assert name.split("/")[0] in warning
    (failure,) = failures(comparison).rows
    assert (failure["run"], failure["state"]) == ("0_seed=0", "unreadable")
    assert best(comparison).rows[0]["test/miou"] == "0.7000"


def test_diverged_metric_of_a_finished_run_is_lost_not_averaged(
    tmp_path: Path,
) -> None:
    make_job(tmp_path / "a", seed=0, score=0.5)
    make_job(tmp_path / "b", seed=1, score=float("nan"))
    (group,) = compare(collect_jobs([tmp_path / "a", tmp_path / "b"])).groups
    assert group.estimate("test/miou") == Estimate(0.5, None, 1)
    assert group.lost("test/miou") == 1


def test_folders_that_are_no_runs_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign/notes.txt").write_text("x")
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep/multirun.yaml").write_text("{}")
    for name, complaint in {
        "nowhere": "no such folder",
        "empty": "an empty folder",
        "foreign": r"neither \.hydra/ nor sweep\.yaml",
        "sweep": "no job has begun",
    }.items():
        with pytest.raises(CheckpointError, match=f"{name}: .*{complaint}"):
            collect_jobs([tmp_path / name])


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
    ]
    for runs, metric, error, complaint in cases:
        with pytest.raises(error, match=complaint) as caught:
            compare(collect_jobs(runs), metric)
        assert "\n" not in str(caught.value)


def test_validation_stands_in_where_there_is_no_test_split(tmp_path: Path) -> None:
    run = make_job(tmp_path / "a", score=0.25)
    metrics = json.loads((run / "metrics.json").read_text())
    del metrics["test/miou"]
    (run / "metrics.json").write_text(json.dumps(metrics))
    assert compare(collect_jobs([run])).metric == "val/miou"


def test_commands_can_be_pasted_into_a_shell(tmp_path: Path) -> None:
    sweep = make_sweep(
        tmp_path / "s", [{}], ["model=imexnet,resnet", "data.root='a b'"]
    )
    run = make_job(tmp_path / "r", words=("optimizer.lr=0.1",))
    assert commands([sweep, run]) == [
        """python train.py -m model=imexnet,resnet 'data.root='"'"'a b'"'"''""",
        "python train.py model=imexnet model.alpha=1.0 model.h=1.0 seed=0 optimizer.lr=0.1",
    ]


def test_alpha_that_training_varies_makes_a_network_of_its_own(tmp_path: Path) -> None:
    """It starts where a fixed alpha of 100 stays: the two are not seeds of one setting."""
    (tmp_path / "multirun.yaml").write_text("{}")
    make_job(tmp_path / "0_fixed", alpha=100.0)
    for seed in (0, 1):
        folder = make_job(tmp_path / f"{seed + 1}_auto", alpha="auto", seed=seed)
        status = json.loads((folder / "status.json").read_text())
        (folder / "status.json").write_text(json.dumps(status | {"alpha": 100.0}))
    make_job(tmp_path / "3_h", h="learned", state="begun")
    jobs = collect_jobs([tmp_path])
    assert [job.h for job in jobs] == [1.0] * 4
    networks = {
        group.setting.network: len(group.jobs) for group in compare(jobs).groups
    }
    assert networks == {
        "imexnet": 1,
        "imexnet, alpha auto": 2,
        "imexnet, h learned": 1,
    }
