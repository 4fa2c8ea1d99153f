"""What all commands have: completion, quiet and verbose, settings from a file and the environment, the next command."""

import itertools
import json
import re
import shlex
import shutil
import subprocess

import numpy as np
import pytest
from support.command import told

from protocols.commands.app import COMMANDS, parser
from protocols.commands.parsing.completion import bash_script, fish_script, options_by_command, zsh_script
from slots.training import TrainConfig, fit


@pytest.fixture(scope="module")
def rows():
    """Three blobs, and a fourth that no model of the first three knows."""
    rng = np.random.default_rng(0)
    labels = np.arange(240) % 4
    return (np.eye(6)[labels] * 3 + rng.normal(0, 0.3, (240, 6))).astype("float32"), labels


@pytest.fixture(scope="module")
def made(rows, tmp_path_factory):
    """A model of three of them, and a file with all."""
    folder = tmp_path_factory.mktemp("parsing")
    x, y = rows
    model, _ = fit(x[y < 3], y[y < 3], config=TrainConfig(epochs=2, slots_per_class=2))
    model.save(folder / "model")
    np.savez(folder / "new.npz", x=x, y=y)
    return folder


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy of both, where the test runs."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- settings


def test_a_file_says_what_the_command_line_leaves_out(folder, capsys):
    (folder / "s.toml").write_text('data = "new.npz"\ndevice = "cpu"\n[predict]\nout = "from-file.csv"\n')
    told(capsys, "predict", "model", "--config", "s.toml")
    assert (folder / "from-file.csv").exists()
    told(capsys, "predict", "model", "--config", "s.toml", "--out", "said.csv")
    assert (folder / "said.csv").read_bytes() == (folder / "from-file.csv").read_bytes()
    told(capsys, "log", "model", "--config", "s.toml")  # it has no such options: keys for all commands may be others'


def test_values_of_every_kind_are_taken(folder, capsys):
    (folder / "s.toml").write_text(
        '[fit]\ndata = "new.npz"\nout = "made"\nepochs = 1\nslots_per_class = 2\nvouch = "none"\njson = true\n'
    )
    document = told(capsys, "fit", "--config", "s.toml").out
    assert '"epochs": 1' in document
    assert (folder / "made" / "slots.json").exists()
    (folder / "s.toml").write_text('[merge]\nfrom = ["0", "1"]\ninto = "0"\n')
    assert "0" in told(capsys, "merge", "made", "--config", "s.toml").out


def test_the_environment_goes_before_the_file_and_behind_the_command_line(folder, capsys, monkeypatch):
    (folder / "s.toml").write_text('[predict]\ndata = "new.npz"\nout = "file.csv"\n')
    monkeypatch.setenv("SLOTS_CONFIG", "s.toml")
    monkeypatch.setenv("SLOTS_PREDICT_OUT", "variable.csv")
    told(capsys, "predict", "model")
    told(capsys, "predict", "model", "--out", "said.csv")
    assert {it.name for it in folder.glob("*.csv")} == {"variable.csv", "said.csv"}


def test_words_of_a_variable_are_parted_as_by_a_shell(folder, capsys, monkeypatch):
    monkeypatch.setenv("SLOTS_MERGE_FROM", "0 '1'")
    told(capsys, "merge", "model", "--into", "both")
    classes = json.loads(told(capsys, "show", "model", "--json").out)["classes"]
    assert {it["class"]: it["slots"] > 0 for it in classes}["both"]
    assert not any(it["slots"] for it in classes if it["class"] in {"0", "1"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[predict]\nouts = 1\n",
            "Error: `outs` in [predict] of s.toml must be an option of slots predict. Those are: by, certified, data",
        ),
        ("[predict]\nconfig = 'x'\n", "Error: `config` in [predict] of s.toml must be an option"),
        ("[predict.out]\n", "Error: `out` in [predict] of s.toml must be a value or a list, got a table."),
        ("predict = 3\n", "Error: `predict` in s.toml must be a table, got 3. Write [predict]."),
        ("[predict\n", "Error: `--config` must name a readable TOML file, got s.toml: "),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(folder, capsys, text, said):
    (folder / "s.toml").write_text(text)
    error = told(capsys, "predict", "model", "--data", "new.npz", "--config", "s.toml", status=2).err
    assert error.startswith(said)
    assert error.count("\n") == 1


def test_a_file_that_is_missing_is_refused(folder, capsys):
    error = told(capsys, "predict", "model", "--config", "gone.toml", status=2).err
    assert "`--config` must name a readable TOML file, got gone.toml" in error


def test_a_variable_of_no_option_is_refused(folder, capsys, monkeypatch):
    monkeypatch.setenv("SLOTS_LOG_JASON", "1")
    error = told(capsys, "log", "model", status=2).err
    assert error.startswith("Error: `SLOTS_LOG_JASON` must be named as an option of slots log. Those are: json,")
    told(capsys, "show", "model")  # another command does not mind
    monkeypatch.delenv("SLOTS_LOG_JASON")
    monkeypatch.setenv("SLOTS_LOG_JSON", "true")
    assert told(capsys, "log", "model").out.startswith("{")


# --- how much is said


def test_quiet_leaves_results_and_errors(folder, capsys):
    asked = ["predict", "model", "--data", "new.npz", "--out", "a.csv"]
    loud, quiet = told(capsys, *asked), told(capsys, *asked, "--quiet")
    assert loud.out == quiet.out
    assert (loud.err, quiet.err) == ("Next: slots update model --data new.npz --part test --budget 20 --dry-run\n", "")
    assert told(capsys, "predict", "gone", "--data", "new.npz", "-q", status=4).err.startswith("Error: ")
    assert told(capsys, *asked).err == loud.err  # it holds for one command


def test_verbose_says_each_step_once(folder, capsys):
    asked = ["fit", "--data", "new.npz", "--out", "made", "--epochs", "1", "--slots-per-class", "2", "--vouch", "none"]
    lines = told(capsys, *asked, "-v").err.splitlines()
    steps = [re.fullmatch(r" *[\d.]+ s  (.+)", line) for line in lines[:-1]]
    assert all(steps)
    said = [it[1] for it in steps]
    assert all(one != other for one, other in itertools.pairwise(said))
    assert {"features", "held-out"} <= set(said)
    assert len([it for it in said if it.startswith("epoch 1/1  loss ")]) == 1
    assert lines[-1] == "Next: slots predict made --data NEW --out answers.csv"


def test_both_are_refused(folder, capsys):
    error = told(capsys, "log", "model", "-q", "-v", status=2).err
    assert error == "Error: --quiet and --verbose exclude each other, got both. Leave one out.\n"


def test_each_command_names_one_that_runs(folder, capsys):
    """From a fit to the difference that an update made, by the last lines alone."""
    asked = ["update", "model", "--data", "new.npz", "--part", "test", "--budget", "3", "--dry-run"]
    for _ in range(2):
        printed = told(capsys, *asked)
        asked = shlex.split(re.search(r"^Next: slots (.*)$", printed.err, re.MULTILINE)[1])
        if "--labels" in asked:
            queries = folder / asked[-1]
            head, *lines = queries.read_text().splitlines()
            place = head.split(",").index("label")
            filled = [",".join([*(it := line.split(","))[:place], "new", *it[place + 1 :]]) for line in lines]
            queries.write_text("\n".join([head, *filled]) + "\n")
    assert asked == ["diff", "model"]
    assert "added" in told(capsys, *asked).out


def test_nothing_is_named_beside_json(folder, capsys):
    assert told(capsys, "predict", "model", "--data", "new.npz", "--json").err == ""


# --- completion


@pytest.fixture(scope="module")
def commands():
    return options_by_command(parser())


def test_every_command_and_option_is_known(commands):
    assert list(commands) == [*(it.__name__ for it, _ in COMMANDS), "completion"]
    assert {"--data", "--config", "--quiet", "-q", "--help"} <= set(commands["fit"])
    assert "--data" not in commands["propose"]  # it is hidden


def complete(words, folder):
    """What bash would offer for the last of the words."""
    lines = [
        bash_script(options_by_command(parser())),
        f"COMP_WORDS=({shlex.join(words)})",
        f"COMP_CWORD={len(words) - 1}",
        "_slots",
        'printf "%s\\n" "${COMPREPLY[@]}"',
    ]
    done = subprocess.run(["bash", "-c", "\n".join(lines)], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_completes(tmp_path):
    assert complete(["slots", "pr"], tmp_path) == ["predict", "propose", "prune"]
    assert complete(["slots", "fit", "--slots"], tmp_path) == ["--slots-per-class"]
    assert complete(["slots", "--debug", "undo", "--t"], tmp_path) == ["--to"]
    assert complete(["slots", "fit", "runs"], tmp_path) == []  # then bash offers files
    assert complete(["slots", "audit", "verify", "--he"], tmp_path) == ["--head", "--help"]


def test_the_other_shells_know_the_same(commands, capsys):
    zsh, fish = zsh_script(commands), fish_script(commands)
    for name, options in commands.items():
        assert f"        {name}) options=({' '.join(options)}) ;;" in zsh
        for option in options:
            kind = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            assert f"complete -c slots -n '__fish_seen_subcommand_from {name}' {kind} -d '" in fish
    assert told(capsys, "completion", "zsh").out == zsh
    assert told(capsys, "completion", "fish").out == fish
    assert told(capsys, "completion", "bash").out == bash_script(commands)
    assert told(capsys, "completion", "tcsh", status=2).err == "Error: `SHELL` must be bash, zsh or fish, got tcsh.\n"


@pytest.mark.parametrize(("shell", "check"), [("zsh", "-n"), ("fish", "--no-execute")])
def test_the_other_shells_can_read_it(shell, check, commands, tmp_path):
    if shutil.which(shell) is None:
        pytest.skip(f"needs {shell}")
    script = tmp_path / "script"
    script.write_text({"zsh": zsh_script, "fish": fish_script}[shell](commands))
    subprocess.run([shell, check, str(script)], check=True)
