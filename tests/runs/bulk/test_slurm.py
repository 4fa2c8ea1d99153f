"""The script for a Slurm array, run as Slurm would run its tasks, without Slurm."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from support import nursery
from support.small_models import three_animals

from protocols.bulk.engines import answer_shards
from protocols.bulk.run import Options

pytest.importorskip("pyarrow", reason="pip install 'neural-slots[parquet]'")
SCRIPT = Path(__file__).parents[3] / "deploy" / "bulk.slurm"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Slurm's scripts are for bash")


FORKED = f"""#!{sys.executable} -P
import sys
sys.path.insert(0, {os.fspath(Path(nursery.__file__).parents[1])!r})
from support.nursery import run
done = run(sys.argv[1:])
sys.stdout.write(done.stdout)
sys.stderr.write(done.stderr)
sys.exit(done.returncode)
"""


def task(folder, number, *words):
    """One task of the array, begun; `slots` is what the nursery forks."""
    command = folder / "bin" / "slots"
    command.parent.mkdir(exist_ok=True)
    command.write_text(FORKED)
    nursery.is_ready()  # begun here, it does not keep what the task says open
    command.chmod(0o755)
    env = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "1"}
    env.pop("SLURM_ARRAY_TASK_ID", None)
    if number is not None:
        env |= {"SLURM_ARRAY_TASK_ID": str(number), "SLURM_ARRAY_JOB_ID": "77"}
    return subprocess.Popen(
        ["bash", SCRIPT, *map(str, words)], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def contents(out):
    return {path.name: path.read_bytes() for path in out.glob("*.parquet")}


def test_the_script_is_one_that_bash_takes():
    subprocess.run(["bash", "-n", SCRIPT], check=True)
    lines = SCRIPT.read_text().splitlines()
    options = [place for place, line in enumerate(lines) if line.startswith("#SBATCH")]
    commands = [place for place, line in enumerate(lines) if line and not line.startswith("#")]
    assert max(options) < min(commands), "Slurm reads no option after the first command"


def test_tasks_of_an_array_share_the_shards_and_each_is_answered_once(tmp_path):
    """Indices need neither begin at 0 nor be without gaps: an array may be submitted again for some of them."""
    three_animals().save(tmp_path / "m")
    rng = np.random.default_rng(0)
    np.save(tmp_path / "x.npy", (np.eye(8)[rng.integers(0, 8, 600)] + rng.normal(0, 0.1, (600, 8))).astype(np.float32))
    answer_shards(tmp_path / "m", str(tmp_path / "x.npy"), tmp_path / "one", Options("predict", 10))
    call = "predict", tmp_path / "m", "--shards", tmp_path / "x.npy", "--rows", 10, "--out", tmp_path / "out"
    tasks = [task(tmp_path, number, *call) for number in (0, 7)]
    told = [it.communicate(timeout=300) for it in tasks]
    for number, it, (said, noted) in zip((0, 7), tasks, told, strict=True):
        assert it.returncode == 0, noted
        assert f"task {number} of job 77" in noted
        assert "600 rows in 60 of 60 shards" in said
    assert contents(tmp_path / "out") == contents(tmp_path / "one")
    assert not list((tmp_path / "out").glob(".run/leases/*.tries"))


@pytest.mark.parametrize(
    ("number", "words", "message"),
    [
        (None, ("predict", "m"), "must run as a task of an array. Submit it: sbatch --array=0-63"),
        (3, ("fit", "m"), "bulk.slurm takes predict, ood or propose with the options of that command, got 'fit'."),
        (3, (), "got ''."),
    ],
)
def test_what_is_no_task_of_such_an_array_is_refused_in_one_line(tmp_path, number, words, message):
    it = task(tmp_path, number, *words)
    said = it.communicate(timeout=60)[1]
    assert it.returncode == 2
    assert message in said
    assert said.count("\n") == 1
