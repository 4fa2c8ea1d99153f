"""Items and labels written straight into the tables of a service's database, and read back."""

import time
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import insert, select, update

from protocols.recipes.building import load_model
from protocols.service.inbox.database import Database
from protocols.service.inbox.tables import item, label

KINDS = {0: "unmatched", 1: "ambiguous", 2: "matched"}


def with_database(data, work):
    """Do something in the database of a data folder, whether a service has it open or not."""
    database = Database.in_folder(data)
    try:
        with ThreadPoolExecutor(1) as pool:  # a test of a browser has an event loop in its own thread
            return pool.submit(database.write_now, work).result()
    finally:
        database.close()


def put_items(data, folder, x, model_name="small"):
    """Rows of features as open items, with the answers of the folder's model; their numbers."""
    model = load_model(folder, device="cpu")
    told = model.predict(x)
    values = [
        {
            "model": model_name,
            "id": f"item-{row}",
            "received": time.time(),
            "media": "application/x-float32",
            "content": x[row].astype("<f4").tobytes(),
            "digest": f"{row:064x}",
            "size": 4 * x.shape[1],
            "generation": model.generation,
            "answer": KINDS[int(told.answers[row])],
            "label_id": int(told.labels[row]),
            "label": model.class_name(int(told.labels[row])),
            "slot": int(told.slots[row]),
            "margin": float(told.margins[row]),
            "state": "open",
        }
        for row in range(len(x))
    ]
    return with_database(
        data,
        lambda it: [it.execute(insert(item).values(**row).returning(item.c.number)).scalar_one() for row in values],
    )


def put_labels(data, given, by="ann", sure=1):
    """Labels of items by their numbers."""

    def work(connection):
        for number, word in given.items():
            values = {"item": number, "label": word, "given": time.time(), "by": by, "sure": sure, "source": "api"}
            connection.execute(insert(label).values(**values))
            connection.execute(update(item).where(item.c.number == number).values(state="labelled"))

    with_database(data, work)


def items(data):
    """All items by their numbers."""
    found = with_database(data, lambda it: it.execute(select(item).order_by(item.c.number)).mappings().all())
    return {row["number"]: row for row in found}
