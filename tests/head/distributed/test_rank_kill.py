"""A process of a fit is killed: the others say so in a line and end; a resume by more processes ends equal."""

import json

import pytest
from support import nursery, rank_kill


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    done = nursery.run([tmp_path_factory.mktemp("kill")], script=rank_kill.__file__)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_others_end_with_one_line(story):
    _, killed, _ = story["statuses"]
    assert killed == [-9 if rank == rank_kill.VICTIM else 5 for rank in range(rank_kill.SIZE)]
    for rank, said in enumerate(story["said"]):
        line = (
            f"Error: Another of the {rank_kill.SIZE} processes must still be there, and process {rank} has lost it. "
            "Start all again; with --resume they go on from the last epoch that was done.\n"
        )
        assert said == ("" if rank == rank_kill.VICTIM else line)


def test_a_kill_leaves_the_checkpoint_and_no_model(story):
    assert story["left"] == [True, False]


def test_a_resume_by_more_processes_ends_equal(story):
    alone, _, resumed = story["statuses"]
    assert [alone, *resumed] == [0] * (rank_kill.SIZE + 2)
    whole, again = story["digests"]
    assert whole == again
    assert {"head.safetensors", "novelty.safetensors", "rehearsal.safetensors"} <= whole.keys()
    assert not story["checkpoint"]


def test_the_first_process_alone_prints(story):
    first, *others = story["printed"]
    assert first > 0
    assert others == [0] * rank_kill.SIZE
