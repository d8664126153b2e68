import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from made_up import made_up_sweep, store_check, store_runs
from typer.testing import CliRunner

from paramz.analysis.report import write_report
from paramz.analysis.report.law import law_section
from paramz.analysis.report.section import View
from paramz.analysis.runs import choose_scale, group_columns
from paramz.cli import app


def test_one_page_of_several_runs_with_its_figures_beside_it(demo: Path) -> None:
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert sorted(p.name for p in demo.glob("*.png")) == [
        "lm-coord-mup-adamw.png",
        "lm-coord-sp-adamw.png",
        "lm-optimum.png",
        "lm-regret.png",
        "lm-transfer.png",
        "mlp-optimum.png",
        "mlp-regret.png",
        "mlp-transfer.png",
    ]
    assert html.count("<svg") == 8
    assert re.search(r"Does not transfer.</b>sp: best lr moves -1\.[12]", html)
    assert "Transfers.</b>mup: best lr moves" in html
    assert "Fail.</b>sp-adamw: slope 0.5 at readout" in html


def test_the_decision_comes_first_and_then_what_was_run(tmp_path: Path) -> None:
    df = made_up_sweep({"sp": -1.2, "mup": 0.0}).assign(steps=300, optimizer="adamw")
    store_runs(df, tmp_path / "x")
    code = {"train": "lab.py:train", "commit": "0123abc", "dirty": True, "torch": "2.13.0"}
    (tmp_path / "x" / "run.json").write_text(json.dumps(code))
    store_check(tmp_path / "x" / "coord", "mup-adamw", 0.0, passed=True)
    (tmp_path / "decision.json").write_text(json.dumps(DECISION))
    html = write_report(tmp_path / "x").path.read_text(encoding="utf-8")
    text = re.sub(r"<(style|script)>.*?</\1>|<svg.*?</svg>", "", html, flags=re.DOTALL)
    text = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", text))
    said = [
        "Use lr = 0.0123 (0.01 to 0.015) for width=512, steps=400",
        "Loss 2.5 (95% 2.4 to 2.6), predicted for width=512, steps=400",
        "Cost 1 CPU-hours for tuning, 3 CPU-hours for the target",
        "Doubts one seed",
        "at width 256 and above, tuned at width 32 to 256 with 300 steps under mup Loss",
        "at width 256 under mup, measured",
        "Cost 0.06 hours of training in 144 trials",
        "Coordinates mup-adamw: pass",
        "Others sp: does not transfer; loss 2.",
        "what was run lab.py:train",
        "commit 0123abc, with changes that are in no commit",
        "optimizer adamw",
        "seeds 2 (0, 1)",
        "steps 300",
        "width varied: 32, 64, 128, 256",
        "Does not transfer. sp: best lr moves",
    ]
    places = [text.find(part) for part in said]
    assert -1 not in places and places == sorted(places), dict(zip(said, places, strict=True))


DECISION = {
    "target": "width=512,steps=400",
    "outcome": "careful",
    "hp": "lr",
    "value": 0.0123,
    "lo": 0.01,
    "hi": 0.015,
    "forecast": {"mean": 2.5, "lo": 2.4, "hi": 2.6},
    "cost": {"tuning": "1 CPU-hours", "target": "3 CPU-hours"},
    "doubts": ["one seed"],
}


def test_one_group_has_no_name_and_columns_have_meanings(tmp_path: Path) -> None:
    df = made_up_sweep({"sp": -1.2}).drop(columns="parametrization")
    store_runs(df, tmp_path / "x")
    html = write_report(tmp_path / "x").path.read_text(encoding="utf-8")
    assert "</b>Best lr moves" in html and ">all: " not in html
    assert ">group<" not in html and ">all<" not in html
    assert "<b>log2_opt</b>: log₂ of the best lr, between grid points" in html
    # In the dark, lines are made brighter; a heat map would pale.
    assert html.count('<figure class="map">') == 1 and html.count("<figure>") >= 2


def test_the_baseline_comes_first(demo: Path) -> None:
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert html.index("sp: best lr") < html.index("mup: best lr")


def test_nothing_is_fetched_and_ids_are_unique(demo: Path) -> None:
    html = (demo / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"(src|href)=\"(?!#|data:|[\w-]+\.png)", html)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)

    class Ids(HTMLParser):
        seen: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.seen += [v or "" for k, v in attrs if k == "id"]

    parser = Ids()
    parser.feed(html)
    assert len(parser.seen) == len(set(parser.seen)) > 0


def test_what_users_wrote_is_escaped(tmp_path: Path) -> None:
    df = made_up_sweep({"<img src=x onerror=alert(1)>": 0.0})
    df.loc[0, "status"] = "failed"
    df["error"] = None
    df.loc[0, "error"] = "ValueError: <script>"
    store_runs(df, tmp_path / "x")
    html = write_report(tmp_path / "x").path.read_text(encoding="utf-8")
    assert "<img" not in html and "ValueError: <script>" not in html
    assert "ValueError: &lt;script&gt;" in html


def test_a_sweep_without_transfer_still_gets_its_page(tmp_path: Path) -> None:
    df = made_up_sweep({"mup": 0.0})
    store_runs(df[df["width"] == 64], tmp_path / "x")
    written = write_report(tmp_path / "x")
    assert written.figures == [] and not written.judged
    assert CliRunner().invoke(app, ["report", str(tmp_path / "x")]).exit_code == 1  # it was 0
    assert written.verdicts == [
        "Transfer was not judged: neither width nor depth has two values; name the scale with "
        "--scale"
    ]


def test_an_unfinished_sweep_is_judged_by_what_is_there(tmp_path: Path) -> None:
    df = made_up_sweep({"sp": -1.2, "mup": 0.0})
    late = (df["parametrization"] == "mup") & (df["width"] == 256) & (df["lr"] > 2.0**-10)
    written = write_report(store_runs(df[~late], tmp_path / "x"))
    assert "from 32 to 128" in written.verdicts[1] and "Use lr = 0.0" in written.verdicts[1]
    note = "Left out, with fewer than three values of lr: width 256."
    assert note in written.path.read_text(encoding="utf-8")


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder .*nowhere"):
        write_report(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no run: a run is a folder with results/"):
        write_report(tmp_path)


def test_scale_and_groups_are_found_from_the_columns() -> None:
    df = made_up_sweep({"sp": 0.0, "mup": 0.0})
    df["params"] = df["width"] ** 2
    df["accuracy"] = np.linspace(0, 1, len(df))
    assert choose_scale(df, "") == "width"
    assert group_columns(df, "lr", "width") == ["parametrization"]
    both = pd.concat([df.assign(depth=2), df.assign(depth=4)])
    assert group_columns(both, "lr", "width") == ["parametrization", "depth"]


def test_the_command_prints_verdicts_or_json(tmp_path: Path) -> None:
    store_runs(made_up_sweep({"sp": -1.2}), tmp_path / "x")
    run = CliRunner()
    plain = run.invoke(app, ["report", str(tmp_path / "x")])
    assert plain.exit_code == 0
    assert plain.stdout.startswith("sp: best lr moves -1.")
    assert plain.stdout.endswith(f"written: {tmp_path / 'x' / 'report.html'}\n")
    document = json.loads(run.invoke(app, ["report", str(tmp_path / "x"), "--json"]).stdout)
    assert document["report"].endswith("report.html")
    (answer,) = document["answers"]
    assert (answer["group"], answer["outcome"], answer["use_at"]) == ("sp", "fail", 256)
    assert answer["lo"] < answer["value"] < answer["hi"] and answer["tuned_at"] == [256]
    assert answer["sentence"] in plain.stdout
    assert [Path(f).name for f in document["figures"]] == [
        "transfer.png",
        "optimum.png",
        "regret.png",
    ]
    wrong = run.invoke(app, ["report", str(tmp_path / "none")])
    assert wrong.exit_code == 2
    assert "error: no folder" in wrong.stderr


def test_groups_without_a_law_are_named_with_the_reason(tmp_path: Path) -> None:
    widths = [16, 32, 64, 128, 256, 512, 1024]
    falls = pd.DataFrame({"width": widths, "lr": 0.01, "seed": 0, "status": "ok"})
    falls["loss"] = 2.0 + 3.0 / np.sqrt(widths)
    few = falls[falls["width"] < 256]
    runs = pd.concat(
        [
            falls.assign(parametrization="mup"),
            few.assign(parametrization="sp"),
            few.assign(parametrization="ntp"),
            # An error is no measurement: five values of width are left of six.
            falls[:6].assign(parametrization="embed", status=["ok"] * 5 + ["failed"]),
            falls.assign(parametrization="u-mup", status=["ok"] * 6 + ["diverged"]),
        ]
    )
    runs.loc[runs["status"] != "ok", "loss"] = np.nan
    out = CliRunner().invoke(app, ["report", str(store_runs(runs, tmp_path / "x"))]).stdout
    page = (tmp_path / "x" / "report.html").read_text(encoding="utf-8")
    for said in (
        "mup: width 2048: loss ",
        "No law of the loss of sp; ntp: here it takes 6 values of width, of which it is tested on "
        "the largest two, and there are 4 (paramz fit takes 4, untested)",
        "No law of the loss of embed: here it takes 6 values of width, of which it is tested on "
        "the largest two, and there are 5 (paramz fit takes 4, untested)",
        "No law of the loss: u-mup at lr 0.01: diverged at width 1024, so the losses lie on no "
        "one law: choose a smaller lr (value=, paramz fit --at)",
    ):
        assert said in out and said in page


def test_the_decision_holds_the_predicted_loss_and_not_the_law_of_a_group(tmp_path: Path) -> None:
    rows = [
        {"parametrization": name, "width": width, "lr": 0.01, "seed": seed, "status": "ok",
         "loss": (2.3 + 9 / width) * (1 + 0.001 * seed)}
        for name in ("sp", "mup")
        for width in (32, 48, 64, 96, 128, 192, 256)
        for seed in (0, 1)
    ]  # fmt: skip
    found = law_section(pd.DataFrame(rows), View(tmp_path, "", "lr", "loss", "width"))
    starts = [text.partition(": loss ")[0] for _, text in found.lines]
    assert starts == ["sp: width 512", "mup: width 512"]
