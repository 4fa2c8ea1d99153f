"""Items that are deleted while a job works on them are left out of what it stores, and stop nothing else."""

import asyncio

import pytest
from sqlalchemy import delete, update
from support.inbox_rows import items, put_items, put_labels, with_database
from support.service import rows, running
from support.service_jobs import done, groups_of

from protocols.recipes.building import load_model
from protocols.service.inbox.blobs import Blobs, MissingContentError
from protocols.service.inbox.database import Database
from protocols.service.inbox.tables import item
from protocols.service.jobs import runner
from protocols.service.jobs.gathering import gather_there

pytestmark = pytest.mark.slow

MODEL = "/api/v1/models/small"


def delete_item(data, number):
    with_database(data, lambda it: it.execute(delete(item).where(item.c.number == number)))


def into_files(data, numbers):
    """Keep the contents of items as files beside the database, as those of large ones are."""
    blobs = Blobs(data / "blobs")

    def work(connection):
        for number in numbers:
            row = connection.execute(item.select().where(item.c.number == number)).one()
            blobs.put(row.digest, row.content)
            connection.execute(update(item).where(item.c.number == number).values(content=None))

    with_database(data, work)
    return blobs


@pytest.fixture
def deleting(monkeypatch):
    """Deletes an item as soon as a job has gathered what it works on."""

    def arrange(data, number):
        async def gathered(*args, **options):
            found = await gather_there(*args, **options)
            await asyncio.to_thread(delete_item, data, number)
            return found

        monkeypatch.setattr(runner, "gather_there", gathered)

    return arrange


def test_a_review_leaves_out_what_was_deleted_while_it_ran(own, tmp_path, deleting):
    data = tmp_path / "data"
    put_items(data, own, rows(300, 5, classes=4)[0])
    with running(own, data) as client:
        whole = groups_of(data, done(client, client.post(f"{MODEL}/review"))["review"])
        (middle, gain), members = next((key, it) for key, it in whole.items() if len(it) > 2)
        deleting(data, middle)
        result = done(client, client.post(f"{MODEL}/review"))
        found = groups_of(data, result["review"])
    assert result["groups"] == len(found) == len(whole)
    assert result["covered"] == sum(len(it) for it in found.values()) == sum(len(it) for it in whole.values()) - 1
    assert found.pop((members[1], gain - 1)) == members[1:]
    del whole[middle, gain]
    assert found == whole


def test_an_update_learns_from_an_item_that_was_deleted_while_it_ran(own, tmp_path, deleting):
    data = tmp_path / "data"
    x, y = rows(300, 5, classes=4)
    white = [number for number, of in zip(put_items(data, own, x), y, strict=True) if of == 3]
    put_labels(data, dict.fromkeys(white[:5], "white"))
    deleting(data, white[0])
    with running(own, data) as client:
        result = done(client, client.post(f"{MODEL}/updates"))
    assert sorted(result["learned"]) == white[:5]
    stored = items(data)
    assert white[0] not in stored
    assert {stored[it]["state"] for it in white[1:5]} == {"learned"}


async def all_gathered(data, model, folder, content):
    database = Database.in_folder(data)
    try:
        return await gather_there(database, "small", model, folder, content, labelled=False)
    finally:
        database.close()


def test_a_file_that_goes_while_items_are_gathered(own, tmp_path):
    data = tmp_path / "data"
    numbers = put_items(data, own, rows(30, 5, classes=4)[0])
    blobs = into_files(data, numbers[3:6])
    digests = {number: row["digest"] for number, row in items(data).items()}
    gone = [digests[numbers[4]]]
    (folder := tmp_path / "job").mkdir()

    def content(digest):
        if digest in gone:  # deleted once its row was read
            gone.clear()
            delete_item(data, numbers[4])
            blobs.path(digest).unlink()
        return blobs.get(digest)

    model = load_model(own, device="cpu")
    found = asyncio.run(all_gathered(data, model, folder, content))
    assert found.numbers == [it for it in numbers if it != numbers[4]]
    blobs.path(digests[numbers[5]]).unlink()  # lost, not deleted: its item is there
    with pytest.raises(MissingContentError, match=rf"content {digests[numbers[5]][:12]} is missing"):
        asyncio.run(all_gathered(data, model, folder, blobs.get))


def test_a_lost_file_does_not_keep_other_items_from_being_answered_anew(own, tmp_path):
    data = tmp_path / "data"
    x, y = rows(300, 5, classes=4)
    numbers = put_items(data, own, x)
    blobs = into_files(data, numbers[:2])
    blobs.path(items(data)[numbers[0]]["digest"]).unlink()
    put_labels(data, {number: "white" for number, of in zip(numbers, y, strict=True) if of == 3 and number > 2})
    # The update gathers the unmatched: the lost one must be matched for it to get as far as this.
    with_database(data, lambda it: it.execute(update(item).where(item.c.number == numbers[0]).values(answer="matched")))
    with running(own, data) as client:
        assert done(client, client.post(f"{MODEL}/updates"))["generation"] == 1
    stored = items(data)
    assert [stored.pop(number)["generation"] for number in numbers[:2]] == [0, 1]
    assert {it["generation"] for it in stored.values()} == {1}
