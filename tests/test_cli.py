"""The command line as people meet it: light, one line an error, data on stdout."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import sys

import pytest
from command_line import run

from negbench import cli

HEAVY = ("torch", "diffusers", "transformers", "open_clip", "polars", "pandas", "datasets", "scipy")


def loaded_by(code):
    script = f"import sys\n{code}\nprint(','.join(sorted(m for m in sys.modules if '.' not in m)))"
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(out.stdout.splitlines()[-1].split(","))


@pytest.mark.parametrize(
    "code",
    [
        "import negbench",
        "import negbench.cli",
        "import negbench.types, negbench.registry, negbench.record",
        "sys.argv = ['negbench', '--help']\ntry:\n    import negbench.cli; negbench.cli.main()\n"
        "except SystemExit:\n    pass",
        "from negbench.cli import KINDS, _registry\n"
        "for kind in KINDS:\n    list(_registry(kind).entries())",
    ],
)
def test_light_to_touch(code):
    assert loaded_by(code).isdisjoint(HEAVY)


@pytest.fixture
def arguments(tmp_path):
    prompts = tmp_path / "p.csv"
    prompts.write_text("prompt,negative\na castle,blurry\na dog,\n")
    return [
        "evaluate", "--generator", "fake", "-o", "size=16", "-o", "steps=3",
        "--prompts", prompts, "--out", tmp_path / "runs", "--metric", "no_op",
        "--metric", "evaluations",
    ]  # fmt: skip


def test_json_is_the_record(capfd, arguments):
    code, out, err = run(capfd, *arguments, "-m", "human", "--json")
    assert code == 0
    record = json.loads(out)
    assert {"plan", "plan_digest", "status", "provenance", "estimates", "paired"} <= set(record)
    estimate = record["estimates"][0]
    assert {
        "metric", "value", "ci95", "n_scored", "n_unscored", "higher_is_better", "unit"
    } <= set(estimate)  # fmt: skip
    assert {"metric", "baseline", "delta", "ci95", "p", "n"} <= set(record["paired"][0])
    assert "drawing" in err


def test_several_methods_give_a_list_of_records(capfd, arguments):
    code, out, _ = run(capfd, *arguments, "-m", "human", "-m", "none", "--json")
    assert code == 0
    assert [record["label"] for record in json.loads(out)["records"]] == ["human", "none"]


def test_table_csv_and_latex(capfd, arguments):
    _, out, _ = run(capfd, *arguments, "-m", "human")
    assert "no_op" in out
    assert "run" in out
    _, out, _ = run(capfd, *arguments, "-m", "human", "--csv")
    rows = list(csv.DictReader(io.StringIO(out)))
    assert [row["metric"] for row in rows] == ["no_op", "evaluations"]
    assert float(rows[0]["value"]) == 0.5
    _, out, _ = run(capfd, *arguments, "-m", "human", "--latex")
    assert out.startswith(r"\begin{tabular}")
    assert r"no\_op" in out


def test_dry_run_draws_nothing(capfd, arguments, tmp_path):
    code, out, _ = run(capfd, *arguments, "-m", "human", "--dry-run", "--json")
    outlook = json.loads(out)
    assert code == 0
    # two prompts x two noises: four twins, two treated (the other two have no negative)
    assert (outlook["images"], outlook["images_to_draw"]) == (6, 6)
    assert not (tmp_path / "runs").exists()
    _, out, _ = run(capfd, *arguments, "-m", "human", "--dry-run")
    assert "6 to draw" in out


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["-m", "negotp"], "did you mean negopt"),
        (["-m", "human", "-b", "miniature-qualty"], "did you mean miniature-quality"),
        (["-m", "human", "--metric", "aesthetics"], "did you mean aesthetic"),
        (["-m", "popular", "-p", "kk=3"], "no parameter 'kk'"),
        (["-m", "popular", "-p", "k=many"], "method popular: k"),
        (["-m", "popular", "-p", "k"], "key=value"),
        (["-m", "human", "-m", "human"], "given twice"),
        (["-m", "human", "--guidance", "windw"], "did you mean window"),
        (["-m", "human", "-g", "stop=1"], "needs --guidance"),
        (["-m", "human", "--limit", "0"], "at least 1"),
        (["-m", "human", "--shard", "5/3"], "k/N"),
        (["-m", "human", "--json", "--csv"], "exclude"),
        (["-m", "human", "--plugin", "nowhere.py"], "does not exist"),
        (["-m", "human", "-o", "sze=3"], "sze"),
        (["-m", "human", "--prompts", "nowhere.csv"], "does not exist"),
        (["-m", "human", "--generator", "./no/such/folder"], "no/such/folder"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capfd, arguments, extra, said):
    code, out, err = run(capfd, *arguments, *extra)
    assert code == 2
    assert out == ""
    assert said in err
    assert len(err.strip().splitlines()) == 1, err


PLUGIN_ERRORS = {
    "raises": ("raise RuntimeError('boom')", "boom"),
    "few": ("return []", "0 treatments for 2 cases"),
    "strings": ("return [7 for c in cases]", "int"),
}


@pytest.mark.parametrize("kind", PLUGIN_ERRORS)
def test_a_plugin_that_breaks_its_contract(capfd, arguments, tmp_path, kind):
    body, said = PLUGIN_ERRORS[kind]
    file = tmp_path / "mine.py"
    file.write_text(
        "from negbench.methods import Method, methods\n"
        f"@methods.register('mine_{kind}')\n"
        "class Mine(Method):\n"
        "    def treat(self, cases, *, seed):\n"
        f"        {body}\n"
    )
    code, _, err = run(capfd, *arguments, "-m", f"mine_{kind}", "--plugin", file)
    assert code == 2
    assert said in err
    assert f"mine_{kind}" in err
    assert "Traceback" not in err


def test_a_plugin_file_that_fails_names_its_line(capfd, arguments, tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("x = 1\ny = undefined\n")
    code, _, err = run(capfd, *arguments, "-m", "human", "--plugin", file)
    assert code == 2
    assert "line 2" in err


def test_a_plugin_in_one_line(capfd, arguments, tmp_path):
    file = tmp_path / "loud.py"
    file.write_text(
        "from negbench.methods import Method, methods\n"
        "from negbench.types import Negative, Treatment\n"
        "@methods.register('loud')\n"
        "class Loud(Method):\n"
        "    '''Says no, loudly.'''\n"
        "    def treat(self, cases, *, seed):\n"
        "        return [Treatment(prompt=c.prompt, negatives=(Negative(text='UGLY'),))"
        " for c in cases]\n"
    )
    code, out, _ = run(capfd, *arguments, "-m", "loud", "--plugin", file, "--json")
    assert code == 0
    assert json.loads(out)["n_samples"] == 4
    code, out, _ = run(capfd, "list", "methods", "--plugin", file)
    assert "Says no, loudly." in out


@pytest.mark.parametrize("kind", [*cli.KINDS, "benchmarks"])
def test_list_shows_a_line_each(capfd, kind):
    code, out, _ = run(capfd, "list", kind)
    assert code == 0
    assert out.strip()
    code, out, _ = run(capfd, "list", kind, "--json")
    assert all({"name", "origin", "summary"} <= set(row) for row in json.loads(out))


def test_show_lists_parameters(capfd):
    code, out, _ = run(capfd, "show", "method", "popular")
    assert code == 0
    assert "k (int" in out
    code, out, _ = run(capfd, "show", "benchmark", "miniature-quality")
    assert json.loads(out)["name"] == "miniature-quality"
    code, _, err = run(capfd, "show", "method", "popula")
    assert code == 2
    assert "did you mean popular" in err


def test_version(capfd):
    code, out, _ = run(capfd, "--version")
    assert code == 0
    assert out.startswith("negbench ")
