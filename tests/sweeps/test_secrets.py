"""Secrets of the environment are in no recorded error, in whatever form they were written."""

import json
from urllib.parse import quote, quote_plus

import pytest

from paramz.sweeps import Store, Sweep, load, run
from paramz.sweeps.running.redact import redact

SECRET = "hun'ter\\2 é/+&\"z"


@pytest.mark.parametrize(
    "name",
    [
        "DB_PASS", "GITHUB_PAT", "SLACK_WEBHOOK_URL", "KEY_PASSPHRASE", "NPM_AUTH", "AUTH_HEADER",
        "PGPASSWORD", "MYSQL_PWD", "LAB_TOKEN", "OPENAI_API_KEY", "SENTRY_DSN", "SESSION_COOKIE",
        "AWS_SECRET_ACCESS_KEY", "db_pass", "SMTPPASS",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "form",
    [
        str, repr, json.dumps, ascii, quote, quote_plus, lambda v: quote(v, safe=""),
        lambda v: repr(v.encode()),
    ],
)  # fmt: skip
def test_a_secret_is_removed_in_every_form(monkeypatch, name, form):
    monkeypatch.setenv(name, SECRET)
    said = redact(f"before {form(SECRET)} after")
    assert f"[{name}]" in said and "hun" not in said and said.endswith("after")


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "PATIENCE", "COMPASS_STEPS", "KEYBOARD", "SSH_AUTH_SOCK"]
)
def test_what_only_sounds_like_a_secret_is_kept(monkeypatch, name):
    monkeypatch.setenv(name, "/some/ordinary/value")
    assert redact("no /some/ordinary/value") == "no /some/ordinary/value"


@pytest.mark.parametrize("name", ["DATABASE_URL", "HTTPS_PROXY", "MLFLOW_TRACKING_URI", "X"])
def test_the_password_inside_a_url_is_removed_and_the_rest_is_kept(monkeypatch, name):
    monkeypatch.setenv(name, "postgresql+psycopg://me:p%40ssword9@db:5432/runs")
    said = redact("cannot reach postgresql+psycopg://me:p%40ssword9@db:5432/runs as p@ssword9")
    assert "ssword9" not in said and "me:" in said and "@db:5432/runs" in said


def test_urls_and_headers_of_the_text_itself():
    said = redact(
        "https://bob:letmein@host/x {'Authorization': 'Bearer abc.def-123'} Basic dXNlcjpwdw=="
    )
    assert "letmein" not in said and "abc.def" not in said and "dXNlc" not in said
    assert "https://bob:[password]@host/x" in said and said.count("[credentials]") == 2
    assert (
        redact("the basic idea: 3 at http://host:80/a@b")
        == "the basic idea: 3 at http://host:80/a@b"
    )


def test_the_content_of_an_authorization_header_is_a_secret_of_its_own(monkeypatch):
    monkeypatch.setenv("NPM_AUTH", "Bearer abcdef123456")
    assert "abcdef123456" not in redact("sent abcdef123456")


def test_a_secret_that_contains_another_leaves_nothing_behind(monkeypatch):
    monkeypatch.setenv("A_TOKEN", "abcdef")
    monkeypatch.setenv("B_TOKEN", "abcdef-and-more")
    assert redact("abcdef-and-more") == "[B_TOKEN]"


def test_a_returned_text_costs_no_result_and_is_kept(tmp_path):
    (tmp_path / "lab.py").write_text(
        "import os\ndef train(config):\n"
        "    return {'loss': 2.0, 'note': 'warm start ' + os.environ['DB_PASS'], 'x': [1]}\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DB_PASS", "hunter2hunter2")
        run(Sweep(train=f"{tmp_path}/lab.py:train", axes={"lr": [1]}), tmp_path / "run", workers=1)
    (row,) = load(tmp_path / "run").to_dict("records")
    assert row["status"] == "ok" and row["loss"] == 2.0 and "note" not in row
    record = Store(tmp_path / "run").read(row["key"])
    assert record["texts"] == {"note": "warm start [DB_PASS]", "x": "[1]"}
    log = (Store(tmp_path / "run").trial(row["key"]) / "log.txt").read_text()
    assert "returned values that are no numbers: 'note', 'x'" in log
