"""The command line as a user meets it: real fits on bundled data, exit statuses, JSON keys, nothing lost on the way."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.command import told
from support.nursery import begin, run

CHECKOUT = Path(__file__).parent.parent
FIT_KEYS = [
    "schema",
    "command",
    "data",
    "backbone",
    "n_slots",
    "slots_per_class",
    "train_accuracy",
    "train_matched",
    "train_precision",
    "test_accuracy",
    "test_matched",
    "test_ambiguous",
    "test_accuracy_matched",
    "vouching",
    "elapsed_s",
    "epochs",
    "seed",
    "device",
    "model",
    "versions",
]


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """A model of the bundled digits, fitted once, with the JSON that the fit printed."""
    folder = tmp_path_factory.mktemp("models") / "digits"
    done = run(["fit", "--data", "digits", "--out", folder, "--json", "--device", "cpu"])
    assert done.returncode == 0, done.stderr
    return folder, json.loads(done.stdout)


def test_fit_prints_the_promised_keys_and_reaches_what_the_readme_says(digits):
    folder, printed = digits
    assert set(FIT_KEYS) <= set(printed)
    assert printed["data"] == "digits"
    assert printed["backbone"] == "pixels"
    assert printed["model"] == str(folder)
    assert sum(printed["slots_per_class"].values()) == printed["n_slots"]
    assert printed["train_precision"] == 1.0
    assert printed["test_accuracy"] >= 0.97
    assert printed["test_accuracy_matched"] >= 0.98
    assert (folder / "report.html").stat().st_size > 10_000
    assert not list(folder.parent.glob(".*checkpoint*"))


def test_evaluate_agrees_with_the_fit(digits, capsys):
    folder, printed = digits
    result = json.loads(told(capsys, "evaluate", folder, "--data", "digits", "--json").out)
    assert result["accuracy"] == printed["test_accuracy"]
    assert result["matched"] == printed["test_matched"]
    train = json.loads(told(capsys, "evaluate", folder, "--data", "digits", "--part", "train", "--json").out)
    assert train["accuracy"] == printed["train_accuracy"]
    assert "matched" in told(capsys, "evaluate", folder, "--data", "digits").out


def test_predict_answers_image_files_and_data_sets_alike(digits, capsys, tmp_path):
    from protocols.data.loading import load_data

    folder, _ = digits
    images = load_data("digits").x_test[:3]
    files = []
    for i, image in enumerate(images):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(image[..., 0]).save(files[-1])
    by_file = json.loads(told(capsys, "predict", folder, *files, "--json").out)["answers"]
    by_row = json.loads(told(capsys, "predict", folder, "--data", "digits", "--json").out)["answers"]
    assert [{**a, "input": None} for a in by_file] == [{**a, "input": None} for a in by_row[:3]]
    assert by_file[0]["answer"] in {"matched", "ambiguous", "unmatched"}
    lines = told(capsys, "predict", folder, files[0]).out.splitlines()
    assert lines[0].startswith("input,label,answer,slot,margin")
    assert len(lines) == 2
    target = tmp_path / "deep" / "answers.csv"
    told(capsys, "predict", folder, "--data", "digits", "--out", target)
    assert len(target.read_text().splitlines()) == 361


def test_show_tells_slots_and_history(digits, capsys):
    folder, printed = digits
    shown = json.loads(told(capsys, "show", folder, "--json").out)
    assert shown["slots"] == printed["n_slots"]
    assert [line["slots"] for line in shown["classes"]] == list(printed["slots_per_class"].values())
    assert shown["history"] == [{"number": 0, "what": "fit", "n_slots": printed["n_slots"]}]
    assert "generation 0: fit" in told(capsys, "show", folder).out


def test_fit_and_show_say_first_what_a_match_is_worth(digits, capsys, tmp_path):
    folder, printed = digits
    worth = printed["vouching"]
    assert (worth["level"], worth["n_matched"]) == (0.98, worth["n_right"])
    n = worth["n_checked"]
    shown = told(capsys, "show", folder).out.splitlines()
    assert shown[0] == (
        f"It could not be shown that matched answers are right at 98 %: of {n} examples that trained nothing "
        f"{worth['n_matched']} are matched, {worth['n_right']} rightly, too few to tell."
    )
    assert json.loads(told(capsys, "show", folder, "--json").out)["vouching"] == worth
    old = told(capsys, "show", CHECKOUT / "tests" / "fixtures" / "old_model").out.splitlines()
    assert old[0] == "How often matched answers are right on new data was not measured."
    quick = ["--data", "digits", "--epochs", 1, "--slots-per-class", 1, "--out", tmp_path / "m"]
    said = told(capsys, "fit", *quick, "--vouch", 0.9).out.splitlines()
    assert said[0].startswith("digits, backbone pixels: ")
    assert said[1].startswith("Matched answers are right at 90 % or better on examples that trained nothing: ")
    assert told(capsys, "show", tmp_path / "m").out.splitlines()[0] == said[1]
    assert json.loads(told(capsys, "fit", *quick, "--vouch", "none", "--json").out)["vouching"] is None


def test_rows_are_looked_at_before_a_fit(capsys, tmp_path):
    rng = np.random.default_rng(0)
    y = np.arange(900) % 3
    x = (np.eye(3, 6)[y] * 4 + rng.normal(size=(900, 6)) * [1, 1, 1, 9, 9, 9]).astype(np.float32)
    np.savez(tmp_path / "rows.npz", x=x, y=y)
    call = ["fit", "--data", tmp_path / "rows.npz", "--out", tmp_path / "m"]
    said = told(capsys, *call).out
    assert re.search(r"^[0-9]+ settings were tried on 684 examples left out:$", said, re.M)
    assert "chosen" in said
    printed = json.loads(told(capsys, *call, "--epochs", 3, "--slots-per-class", 2, "--json").out)
    look = printed["look"]
    assert look["chosen"]["whitening"] is not None  # the loud directions say nothing
    assert look["chosen"] in look["tries"]
    assert look["chosen"]["accuracy"] > 0.9
    assert {tried["slots_per_class"] for tried in look["tries"]} == {2}
    assert (look["used"]["epochs"], look["used"]["slots_per_class"], printed["epochs"]) == (3, 2, 3)
    assert printed["vouching"]["shown"]
    worth = told(capsys, "show", tmp_path / "m").out.splitlines()[0]  # a network may have seen these rows
    n_open = printed["vouching"]["left_open"]
    assert worth.count(f" For the open share of 20 %, {n_open} more are left unmatched: ") == (n_open > 0) == 1
    few = ["--epochs", 3, "--slots-per-class", 2, "--json"]
    trusted = json.loads(told(capsys, *call, *few, "--open-share", 0).out)["vouching"]
    assert (trusted["open_share"], trusted["left_open"]) == (0, 0)
    assert trusted["n_matched"] == printed["vouching"]["n_matched"] + n_open
    tuned = told(capsys, "fit", "--data", "digits", "--epochs", 1, "--json", "--out", tmp_path / "n").out
    assert json.loads(tuned)["look"] is None  # has a recipe of its own


def test_a_command_that_ends_spares_the_last_passes_of_the_garbage_collector():
    code = (
        "import atexit, gc, sys; from protocols.commands import main; sys.argv = ['slots', '--version']; "
        "atexit.register(lambda: print(gc.get_freeze_count() > 1000)); main()"  # what is registered first is last
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[1]) == (0, "True"), done.stderr


def test_version_is_that_of_the_distribution(capsys):
    from importlib.metadata import version

    assert told(capsys, "--version").out == f"slots {version('neural-slots')}\n"


@pytest.mark.skipif(not (CHECKOUT / "cli.py").exists(), reason="no checkout")
@pytest.mark.parametrize("command", [["cli.py"], ["-m", "protocols.commands"]])
def test_the_command_starts_from_a_checkout_too(command):
    done = subprocess.run([sys.executable, *command, "-h"], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert f"{' '.join(command).replace('-m', 'python -m')} [OPTIONS] COMMAND" in done.stdout


def test_help_is_quick_and_does_not_import_torch():
    code = (
        "import sys\nfrom protocols.commands import main\n"
        "try: main(['fit', '--help'])\nexcept SystemExit: pass\nprint('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("False")
    assert "--slots-per-class" in done.stdout


@pytest.mark.parametrize(
    ("words", "spared"),
    [
        (["log", "MODEL"], ["torch"]),
        (["prune", "MODEL", "--keep", "9"], ["torch"]),
        (["predict", "MODEL", "--data", "digits"], ["sklearn", "scipy.stats", "pandas", "torch._dynamo"]),
    ],
)
def test_commands_import_what_they_need(digits, words, spared):
    code = (
        "import sys\nfrom protocols.commands import main\n"
        "try: main(sys.argv[1:])\nexcept SystemExit as end: assert not end.code\n"
        f"print([name for name in {spared} if name in sys.modules])"
    )
    words = [str(digits[0]) if word == "MODEL" else word for word in words]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["fit"], 2, "Missing option '--data'"),
        (["fit", "--data", "digits", "--closing", "half"], 2, "--closing must be compact or full"),
        (["fit", "--data", "digits", "--backbone", "nonsense"], 2, "nonsense"),
        (["fit", "--data", "digits", "--backbone", "none"], 2, "must be a backbone such as pixels for images"),
        (["fit", "--data", "digits", "--views", "wiggle"], 2, "wiggle"),
        (["fit", "--data", "digits", "--option", "widths"], 2, "`option` must be KEY=VALUE, got 'widths'"),
        (["fit", "--data", "digits", "--option", "widths=[8]"], 2, "An option of pixels must be left out, got widths"),
        (["fit", "--data", "digits", "--backbone", "cifar_resnet20"], 2, "`weights` must be given for a frozen"),
        (["fit", "--data", "digits", "--detach"], 2, "`reconstruction` must be above 0 with detach, got 0. Pass"),
        (["fit", "--data", "digits", "--reconstruction", "1"], 2, "`reconstruction` must come with a backbone that"),
        (["fit", "--data", "digits", "--stabilize", "1"], 2, "`stabilize` must come with a backbone that learns"),
        (["fit", "--data", "digits", "--backbone", "cnn", "--readable"], 2, "`readable` must come with images and the"),
        (["fit", "--data", "digits", "--fine-tune"], 2, "`fine_tune` must come with pretrained"),
        (["fit", "--data", "digits", "--backbone", "timm:x", "--weights", "no.pt"], 2, "must"),
        (["fit", "--data", "digits", "--device", "cuda:99"], 2, "`device` must be auto, cpu or a CUDA device"),
        (["fit", "--data", "digits", "--epochs", "-1"], 2, "--epochs"),
        (["fit", "--data", "digits", "--vouch", "1"], 2, "`vouch` must lie in (0, 1) or be none, got 1."),
        (["fit", "--data", "digits", "--vouch", "most"], 2, "`vouch` must lie in (0, 1) or be none, got most."),
        (["fit", "--data", "digits", "--vouch", "0.9", "--closing", "full"], 2, "`vouch` must be left out with"),
        (["fit", "--data", "digits", "--open-share", "1"], 2, "`open_share` must lie in [0, 1), got 1.0."),
        (["fit", "--data", "digits", "--open-share", "0", "--vouch", "none"], 2, "`open_share` must be left out"),
        (["fit", "--data", "digits", "--precision", "1.5"], 2, "`precision` must lie in (0, 1]"),
        (["fit", "--data", "nowhere.npz"], 3, "nowhere.npz"),
        (["show", "nowhere"], 4, "nowhere"),
        (["predict", "nowhere"], 2, "Give image files (texts to a model of text) or --data"),
    ],
)
def test_a_wrong_call_gives_one_line_and_its_status(arguments, status, says, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = told(capsys, *arguments, status=status)
    assert says in printed.err
    assert "Traceback" not in printed.err
    assert printed.out == ""
    assert list(tmp_path.iterdir()) == []


def test_a_trained_network_of_others_becomes_a_model(capsys, tmp_path):
    from backbones.nets.cifar_resnet import CifarResNet
    from protocols.recipes.building import load_model

    x = np.random.default_rng(0).integers(0, 255, (60, 12, 12, 3)).astype(np.uint8)
    y = np.arange(60) % 2
    x[y == 1, :6] //= 4
    network = CifarResNet(20)
    torch.save(network.state_dict(), tmp_path / "weights.pt")
    arguments = ["fit", "--data", archive(tmp_path / "images.npz", x, y), "--backbone", "cifar_resnet20"]
    chosen = ["--weights", tmp_path / "weights.pt", "--option", "size=16", "--epochs", 2, "--slots-per-class", 2]
    printed = json.loads(told(capsys, *arguments, *chosen, "--out", tmp_path / "model", "--json").out)
    assert printed["backbone"] == "pretrained"
    (tmp_path / "weights.pt").unlink()  # the model has them now
    model = load_model(tmp_path / "model", device="cpu")
    assert model.backbone.options["size"] == 16
    assert torch.equal(model.backbone.network.conv1.weight, network.conv1.weight)
    assert (model.predict(x).labels == y).mean() > 0.9


def archive(path, x, y):
    np.savez(path, x_train=x, y_train=y, x_test=x[:0], y_test=y[:0])
    return path


def test_bad_data_has_its_own_status(capsys, tmp_path):
    x = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    y = np.arange(40) % 2
    broken = x.copy()
    broken[3, 2] = np.nan
    for name, data, labels, says in [
        ("nan", broken, y, "nan.npz"),
        ("short", x, y[:-1], "short.npz"),
        ("empty", x[:0], y[:0], "at least one example"),
        (
            "unlabelled",
            x,
            np.full(40, -1),
            "got training examples without a label in 'unlabelled'. Labels are `y` in an",
        ),
    ]:
        printed = told(
            capsys, "fit", "--data", archive(tmp_path / f"{name}.npz", data, labels), "--out", tmp_path / "m", status=3
        )
        assert says in printed.err
        assert not (tmp_path / "m").exists()


def test_one_class_and_contradictions_are_documented_behaviour(capsys, tmp_path):
    x = np.random.default_rng(0).normal(size=(60, 5)).astype(np.float32)
    alone = json.loads(
        told(
            capsys,
            "fit",
            "--data",
            archive(tmp_path / "one.npz", x, np.zeros(60, int)),
            "--out",
            tmp_path / "one",
            "--json",
        ).out
    )
    assert alone["train_accuracy"] == 1.0
    x[30:] = x[:30]
    y = np.repeat([0, 1], 30)
    y[:20] = y[30:50] = np.arange(20) % 2  # the last ten pairs contradict each other
    source = archive(tmp_path / "two.npz", x, y)
    both = json.loads(
        told(capsys, "fit", "--data", source, "--out", tmp_path / "two", "--closing", "full", "--json").out
    )
    assert both["contradictions"] == [*range(20, 30), *range(50, 60)]
    assert both["train_matched"] == pytest.approx(40 / 60)
    assert both["train_precision"] == 1.0


def test_a_folder_that_is_no_model_is_left_alone(capsys, tmp_path):
    precious = tmp_path / "thesis"
    precious.mkdir()
    (precious / "chapter.txt").write_text("1")
    told(capsys, "fit", "--data", "digits", "--out", precious, status=5)
    assert [file.name for file in precious.iterdir()] == ["chapter.txt"]


def test_a_damaged_model_is_told_apart(digits, capsys, tmp_path):
    import shutil

    folder = shutil.copytree(digits[0], tmp_path / "copy")
    weights = next(folder.glob("states/*/head.safetensors"))
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(bytes(data))
    assert "head.safetensors" in told(capsys, "predict", folder, "--data", "digits", status=4).err


def test_a_model_refuses_inputs_of_another_shape(digits, capsys, tmp_path):
    rows = archive(tmp_path / "rows.npz", np.ones((3, 7), np.float32), np.zeros(3, int))
    assert "`x` must be" in told(capsys, "predict", digits[0], "--data", rows, "--part", "train", status=3).err


def start_fit(folder, *more):
    return begin(["fit", "--data", "digits", "--out", folder, "--device", "cpu", *more])


def wait_for(path: Path, seconds: float = 120, *, newer_than: int = 0):
    end = time.monotonic() + seconds
    while not (path.exists() and path.stat().st_mtime_ns > newer_than):
        assert time.monotonic() < end, f"{path} did not appear"
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_fit_leaves_the_old_model_and_goes_on_with_resume(digits, capsys, tmp_path):
    import shutil

    folder = shutil.copytree(digits[0], tmp_path / "model")
    before = told(capsys, "show", folder, "--json").out
    fit = start_fit(folder, "--epochs", "2000", "--seed", "1")
    wait_for(tmp_path / ".model.checkpoint.safetensors")
    fit.kill()
    fit.communicate()
    assert told(capsys, "show", folder, "--json").out == before
    checkpoint = tmp_path / ".model.checkpoint.safetensors"
    left = checkpoint.stat().st_mtime_ns
    again = start_fit(folder, "--epochs", "2000", "--seed", "1", "--resume", "--json")
    wait_for(checkpoint, newer_than=left)
    again.send_signal(signal.SIGINT)
    out, err = again.communicate(timeout=300)  # a busy machine takes its time to close
    assert again.returncode == 0, err
    assert "Stopping" in err
    stopped = json.loads(out)
    assert stopped["interrupted"] is True
    assert 0 < stopped["epochs"] < 2000
    assert json.loads(told(capsys, "evaluate", folder, "--data", "digits", "--json").out)["accuracy"] > 0.9
    assert not (tmp_path / ".model.checkpoint.safetensors").exists()


@pytest.mark.slow
def test_a_checkpoint_of_other_options_is_refused(capsys, tmp_path):
    fit = start_fit(tmp_path / "model", "--epochs", "2000")
    wait_for(tmp_path / ".model.checkpoint.safetensors")
    fit.kill()
    fit.communicate()
    printed = told(capsys, "fit", "--data", "digits", "--out", tmp_path / "model", "--resume", status=2)
    assert "belongs to a fit with other data or options" in printed.err


@pytest.mark.slow
def test_a_full_disk_keeps_the_old_model(digits, capsys, tmp_path):
    import shutil

    folder = shutil.copytree(digits[0], tmp_path / "model")
    before = told(capsys, "show", folder, "--json").out
    script = tmp_path / "full.py"
    script.write_text(
        "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "from protocols.commands import main\nmain()\n"
    )
    done = run(["fit", "--data", "digits", "--epochs", "1", "--out", folder, "--device", "cpu"], script=script)
    script.unlink()
    assert done.returncode == 5
    assert "must be writable" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert told(capsys, "show", folder, "--json").out == before
    assert [file.name for file in tmp_path.iterdir()] == ["model"]
