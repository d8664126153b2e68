"""Tables that others wrote, read from the shell and from Python."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from paramz.analysis import transfer
from paramz.analysis.tables import as_trials, last_rows, parse_names, read_table
from paramz.cli import app


def sizes(rows: int = 24) -> pd.DataFrame:
    n = np.geomspace(1e7, 1e10, rows)
    df = pd.DataFrame({"params": n, "tokens": n * np.resize([2.0, 20, 200, 6, 60], rows)})
    df["final"] = 1.8 + 480 / df["params"] ** 0.35 + 2100 / df["tokens"] ** 0.37
    df["final"] *= np.exp(0.003 * np.random.default_rng(0).standard_normal(rows))
    return df


def call(*words: object) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout, done.stderr


NAMES = ("--map", "params=N", "--map", "tokens=D", "--map", "final=loss")


@pytest.mark.parametrize("ending", ["csv", "tsv", "parquet", "jsonl", "json"])
def test_every_ending_holds_the_same_table(ending: str, tmp_path: Path) -> None:
    df, path = sizes(), tmp_path / f"runs.{ending}"
    if ending in ("csv", "tsv"):
        df.to_csv(path, index=False, sep="," if ending == "csv" else "\t")
    elif ending == "parquet":
        df.to_parquet(path)
    else:
        df.to_json(path, orient="records", lines=ending == "jsonl", double_precision=15)
    read = read_table(path, parse_names(["params=N", "tokens=D", "final=loss"]))
    np.testing.assert_allclose(read[["N", "D", "loss"]], df, rtol=1e-12)


def test_chinchilla_from_the_shell(tmp_path: Path) -> None:
    sizes().to_csv(tmp_path / "runs.csv", index=False)
    code, out, _ = call(
        "fit", tmp_path / "runs.csv", "--law", "chinchilla", *NAMES, "--predict", "N=2e10,D=1e12",
        "--compute", 1e22,
    )  # fmt: skip
    assert code == 0
    assert "loss = E + A / N^alpha + B / D^beta" in out
    assert "the 2 largest runs, predicted from the others: errors" in out
    assert "N 20B, D 1T: loss 1.9" in out and "compute 1e+22: N " in out
    code, out, _ = call("fit", tmp_path / "runs.csv", "--law", "chinchilla", *NAMES, "--json")
    assert code == 0 and set(json.loads(out)["fit"]["params"]) == {"E", "A", "B", "alpha", "beta"}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--law", "chinchila"), "no law 'chinchila'; choose one of power"),
        (("--law", "chinchilla"), "needs the columns N, D and loss, and there is no N, D, loss"),
        (("--law", "chinchilla", *NAMES[:4]), "there is no loss; the columns are: N, D, final"),
        (("--law", "batch", *NAMES), "there is no batch"),
        (("--map", "size=N"), "has no column 'size'; it has: params, tokens, final"),
        (("--map", "size"), "--map wants theirs=ours"),
        (("--map", "params=tokens", "--map", "final=tokens"), "two columns would be called tokens"),
        (("--law", "chinchilla", *NAMES, "--predict", "N=1e9"), "predicts at N and D, as in"),
        (("--law", "chinchilla", *NAMES, "--hold", "25"), "needs 31 runs (5 parameters, one to"),
        (("--law", "hp", *NAMES, "--compute", "1e22"), "'hp' is one of a hyperparameter"),
        (NAMES, "neither width nor depth has two values; name the scale"),
    ],
)
def test_what_is_missing_is_said(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    sizes().to_csv(tmp_path / "runs.csv", index=False)
    code, _, err = call("fit", tmp_path / "runs.csv", *words)
    assert code == 2 and message in err and err.startswith("error: ")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", "cannot tell what .txt is"),
        ("a.json", "{nope", "holds no table of .json"),
        ("a.jsonl", "[1, 2]\nx", "holds no table of .jsonl"),
        ("a.csv", "", "holds no table of .csv"),
        ("a.csv", "a,b\n", "holds no rows"),
        ("a.parquet", "x", "holds no table of .parquet"),
    ],
)
@pytest.mark.parametrize("verb", ["fit", "report"])
def test_files_that_hold_no_table(
    name: str, content: str, message: str, verb: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    code, _, err = call(verb, tmp_path / name)
    assert code == 2 and message in err


def test_a_table_that_is_not_there_is_no_folder(tmp_path: Path) -> None:
    for ending in ("csv", "parquet"):
        code, _, err = call("report", tmp_path / f"nosuch.{ending}")
        assert code == 2 and f"no file {tmp_path / 'nosuch'}.{ending}" in err
    code, _, err = call("report", tmp_path / "nosuch")
    assert code == 2 and "no folder" in err


def test_letters_for_widths_are_no_numbers(tmp_path: Path) -> None:
    df = pd.DataFrame({"width": "wide", "lr": [0.1, 0.2, 0.4], "loss": [2.0, 1.0, 3.0]})
    df.to_csv(tmp_path / "a.csv", index=False)
    _, out, _ = call("report", tmp_path / "a.csv")
    assert "column 'width' must hold numbers, but row 0 holds 'wide'" in out


def wandb_runs() -> pd.DataFrame:
    """The export of a table of runs, as W&B names its columns."""
    rng = np.random.default_rng(0)
    rows = [
        {"Name": f"run-{h}-{x}-{s}", "State": "finished", "Created": "2026", "Runtime": 5,
         "hidden": h, "lr": 2.0**x, "seed": s,
         "loss": 2 + 9 / h + 0.02 * (x + 6) ** 2 + 0.001 * rng.standard_normal()}
        for h in (64, 128, 256) for x in range(-9, -3) for s in (0, 1)
    ]  # fmt: skip
    rows.append(rows[0] | {"Name": "run-crashed", "State": "crashed", "loss": np.nan})
    return pd.DataFrame(rows)


def test_a_table_of_wandb_is_reported(tmp_path: Path) -> None:
    wandb_runs().to_csv(tmp_path / "wandb.csv", index=False)
    code, out, _ = call("report", tmp_path / "wandb.csv", "--map", "hidden=width")
    assert code == 0 and "from 64 to 256" in out
    assert (tmp_path / "wandb-report" / "report.html").is_file()
    code, _, err = call("report", tmp_path / "wandb.csv", "--hp", "rate")
    assert code == 2 and "has no column 'rate'" in err and "--map theirs=ours" in err


@pytest.mark.parametrize("front", ["", "lr=", "loss_lr_"])
def test_a_table_with_a_column_for_each_lr_is_refused_with_what_makes_rows(
    front: str, tmp_path: Path
) -> None:
    """It said that lr and loss are no columns, and to rename some: no name would have helped."""
    df = pd.DataFrame({"width": [64, 128, 256], "seed": 0})
    df = df.assign(**{f"{front}{2.0**k}": 2 + 0.1 * (k + 6) ** 2 for k in range(-8, -3)})
    path = tmp_path / "wide.csv"
    df.to_csv(path, index=False)
    with pytest.raises(KeyError, match="look like one per lr. A row per run: ") as refused:
        transfer(pd.read_csv(path))
    given = {"df": df}
    exec(refused.value.args[0].partition("A row per run: ")[2], given)
    assert transfer(given["long"]).drift.slope.abs().max() < 0.01
    code, _, err = call("report", path)
    assert code == 2 and "look like one per lr. A row per run: long = df.melt(" in err


def test_other_tables_without_a_loss_are_not_taken_for_such() -> None:
    df = pd.DataFrame({"width": [8, 16], "beta1": 0.9, "beta2": 0.95, "lr": 0.1})
    with pytest.raises(KeyError) as refused:
        transfer(df)
    assert "look like one per" not in str(refused.value)


def test_an_empty_status_says_nothing(tmp_path: Path) -> None:
    df = pd.DataFrame({"width": [8, 16, 32], "lr": 0.1, "loss": [2.0, 1.0, 3.0]})
    for empty in ([np.nan] * 3, ["crashed", None, np.nan]):
        df.assign(status=empty).to_csv(tmp_path / "runs.csv", index=False)
        said = read_table(tmp_path / "runs.csv")["status"].tolist()
        assert said[1:] == ["ok", "ok"] and said[0] in ("ok", "failed")


def test_dictionaries_of_the_wandb_api_are_unfolded(tmp_path: Path) -> None:
    df = pd.DataFrame(
        {
            "name": ["a", "b"],
            "config": [str({"lr": 0.1, "width": w, "_wandb": {}}) for w in (8, 16)],
            "summary": [str({"loss": 2.0, "_runtime": 3}), "{'loss': nan, '_runtime': 3}"],
        }
    )
    df.to_csv(tmp_path / "project.csv")
    read = read_table(tmp_path / "project.csv")
    assert read["width"].tolist() == [8, 16] and read["run"].tolist() == ["a", "b"]
    assert read["loss"].iloc[0] == 2.0 and np.isnan(read["loss"].iloc[1])


def test_a_chart_of_wandb_and_files_of_tensorboard_become_curves(tmp_path: Path) -> None:
    chart = pd.DataFrame({"Step": [0, 1, 2]})
    for run in ("width=8,lr=0.1", "width=16,lr=0.1"):
        for bound in ("", "__MIN", "__MAX"):
            chart[f"{run} - loss{bound}"] = [3.0, 2.5, 2.0]
    chart.to_csv(tmp_path / "chart.csv", index=False)
    board = tmp_path / "board"
    board.mkdir()
    for run in ("width=8,lr=0.1", "width=16,lr=0.1"):
        curve = pd.DataFrame({"Wall time": [1.0, 2, 3], "Step": [0, 1, 2], "Value": [3.0, 2.5, 2]})
        curve.to_csv(board / f"run-{run}-tag-loss.csv", index=False)
    for source in (tmp_path / "chart.csv", board):
        read = read_table(source)
        assert set(read["width"]) == {8, 16} and set(read["lr"]) == {0.1} and len(read) == 6
        assert last_rows(read)["loss"].tolist() == [2.0, 2.0]


def test_a_curve_that_ends_without_a_number_diverged() -> None:
    nan = float("nan")
    logged = {
        "good": [(10, 3.0), (20, 2.0), (25, nan)],  # at 25 nobody measures
        "diverged": [(10, 3.0), (20, nan)],
        "never": [(10, nan)],
        "beside": [(10, 3.0), (20, nan), (20, 2.5)],  # two rows of one step
    }
    rows = [{"run": run, "step": s, "loss": y} for run, points in logged.items() for s, y in points]
    ends = as_trials(last_rows(pd.DataFrame(rows)))
    assert ends["status"].tolist() == ["ok", "diverged", "diverged", "ok"]
    assert ends["loss"].fillna(0).tolist() == [2.0, 0.0, 0.0, 2.5]


def test_a_file_with_another_separator_says_so_and_spaces_around_names_go(tmp_path: Path) -> None:
    file = tmp_path / "runs.csv"
    file.write_text("width; lr;loss\n64;0,1;2,5\n")
    with pytest.raises(
        ValueError, match="its only column is 'width; lr;loss': columns are apart by"
    ):
        read_table(file)
    file.write_text("width, lr ,loss\n64,0.1,2.5\n")
    assert read_table(file).columns.tolist() == ["width", "lr", "loss"]


def as_exported(tracker: str, runs: pd.DataFrame) -> pd.DataFrame:
    """Runs as a tracker's Python interface writes them, without a column for the seed."""
    settings, count = ["lr", "width"], len(runs)
    if tracker == "mlflow":
        names = {s: f"params.{s}" for s in settings} | {"loss": "metrics.loss"}
        own = {
            "run_id": [f"{i:032x}" for i in range(count)],
            "experiment_id": "1",
            "status": "FINISHED",
            "tags.mlflow.runName": [f"fox-{i}" for i in range(count)],
        }
    elif tracker == "optuna":
        names = {s: f"params_{s}" for s in settings} | {"loss": "value"}
        own = {
            "number": range(count),
            "datetime_start": "2026-01-01",
            "duration": [f"0 days 00:00:{i:02d}" for i in range(count)],
            "state": "COMPLETE",
        }
    else:
        names = {s: f"config/{s}" for s in settings}
        own = {
            "trial_id": [f"t{i:05d}" for i in range(count)],
            "pid": range(count),
            "date": [f"2026-01-01_00-00-{i:02d}" for i in range(count)],
            "logdir": "/tmp/x",
        }
    return runs.rename(columns=names).assign(**own)  # fmt: skip


@pytest.mark.parametrize("tracker", ["mlflow", "optuna", "ray"])
def test_a_table_of_another_tracker_is_read_as_it_is(tracker: str, tmp_path: Path) -> None:
    df = wandb_runs().query("State == 'finished' and seed == 0")
    df = df.rename(columns={"hidden": "width"})[["width", "lr", "loss"]].reset_index(drop=True)
    as_exported(tracker, df).to_csv(tmp_path / "runs.csv", index=False)
    read = last_rows(read_table(tmp_path / "runs.csv"))
    pd.testing.assert_frame_equal(read[["width", "lr", "loss"]], df)
    assert set(read) <= {"width", "lr", "loss", "status"}


def test_rows_of_logged_steps_are_those_of_their_trial(tmp_path: Path) -> None:
    df = pd.DataFrame({"trial_id": ["a", "a", "b", "b"], "config/lr": [0.1, 0.1, 0.2, 0.2]})
    df.assign(step=[1, 2, 1, 2], loss=[3.0, 2, 3, 1]).to_csv(tmp_path / "runs.csv", index=False)
    assert last_rows(read_table(tmp_path / "runs.csv"))["loss"].tolist() == [2.0, 1.0]


def test_logarithms_of_rates_are_taken_for_such(tmp_path: Path) -> None:
    df = wandb_runs().query("State == 'finished'").rename(columns={"hidden": "width"})
    with pytest.raises(ValueError, match=r"if they are logarithms, df\['lr'\] = 10.0 \*\* df"):
        transfer(df.assign(lr=np.log10(df["lr"])))
    with pytest.raises(ValueError, match=r"6 of 36 rows are not; .*: drop or correct them"):
        transfer(df.assign(lr=df["lr"].where(df["lr"] > 0.002, 0.0)))


def test_a_setting_that_a_tracker_would_call_so_stays(tmp_path: Path) -> None:
    df = pd.DataFrame({"width": [8, 16], "number": [1, 2], "duration": [3, 4], "loss": [2.0, 1.0]})
    df.to_csv(tmp_path / "runs.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "runs.csv"), df)
