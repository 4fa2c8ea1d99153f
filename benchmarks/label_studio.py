"""Label Studio itself beside `slots serve`: connect, predict, annotate, train, and predict otherwise.

    python benchmarks/label_studio.py .label-studio/bin/label-studio --output benchmarks/results/label_studio.json

Both run on this machine, with empty folders of their own, SQLite, and keys. Label Studio is used by its API alone, as
its pages do. What is not as it should be ends it with a sentence. `make label-studio` installs it and runs this.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from support.inbox_rows import with_database
from support.label_studio import (
    annotate,
    check,
    chosen,
    client,
    label_studio,
    let_webhooks_in,
    listed,
    must,
    predictions,
    retrieve,
    until,
)
from support.recorded import keep, made_with
from support.served_process import served
from support.service import rows, small_model

from protocols.service.callers import LOCAL, Role
from protocols.service.gate.keys import add_key
from slots.model.slot_model import SlotModel

API, LS = "/api/v1/models/small", "/ls/small"
WORDS = ("red", "green", "blue", "white")
"""Names of the four classes; the model knows the first three."""


def main():
    """Run all of it, write what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", type=Path, help="The command label-studio of its own environment.")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        small_model(folder / "small")
        data = folder / "data"
        data.mkdir()
        _, boss = with_database(data, lambda it: add_key(it, LOCAL, "boss", Role.ADMIN))
        _, key = with_database(data, lambda it: add_key(it, LOCAL, "label-studio", Role.LABEL, "small"))
        with (
            served(f"small={folder / 'small'}", "--data", data) as service,
            client(service.address, f"Bearer {boss}") as ours,
            label_studio(arguments.command.absolute(), folder / "label-studio") as theirs,
        ):
            found = worked_through(ours, theirs, folder / "small", service.address + LS, key)
    found = {"schema": 1, "what": "Label Studio with the service as its ML backend", **found}
    found |= made_with(__file__, 0, ("fastapi", "uvicorn", "httpx"))
    keep(found, arguments.output)
    print(json.dumps(found, indent=1))


def worked_through(ours, theirs, folder, backend, key):
    """Items become tasks with predictions, annotations labels, training a generation that predicts otherwise."""
    x, y = rows(150, 5, classes=4)
    check(ours.post(f"{API}/items", json={"inputs": x.tolist(), "ids": [f"row {n}" for n in range(150)]}))
    job_over(ours, check(ours.post(f"{API}/review")).json()["id"])
    asked = check(ours.get(f"{LS}/tasks", params={"members": 5})).json()
    more, truth = rows(20, 6, classes=4)
    alone = [{"data": {"features": row, "text": "a row"}} for row in more.tolist()]  # what Label Studio alone has

    config = check(ours.get(f"{LS}/config")).text.replace("  </Choices>", '    <Choice value="white"/>\n  </Choices>')
    project = check(theirs.post("/api/projects/", json={"title": "rows", "label_config": config})).json()["id"]
    access = {"auth_method": "BASIC_AUTH", "basic_auth_user": "any", "basic_auth_pass": key}
    made = check(theirs.post("/api/ml/", json={"project": project, "url": backend, "title": "slots", **access})).json()
    must(made["readable_state"] == "Connected" and made["model_version"] == "0", made)
    check(theirs.post(f"/api/projects/{project}/import", json=[*asked, *alone]))
    tasks = listed(theirs, project)
    must(len(tasks) == len(asked) + len(alone), len(tasks))
    retrieve(theirs, project)
    first = predictions(theirs, project, "0")
    compared(first, tasks, SlotModel.load(folder))
    say("connected; predictions", len(first))

    truths = {f"row {n}": WORDS[label] for n, label in enumerate(y)}
    names = {n: truths.get(it.get("slots_item")) or nearest(it["features"], more, truth) for n, it in tasks.items()}
    one, *others = tasks
    annotate(theirs, one, names[one])
    must(labels(ours) == [], "the webhook has no key yet, so nothing may be labelled")
    let_webhooks_in(theirs, project, key)
    for task in others:
        annotate(theirs, task, names[task])
    given = labels(ours, len(others))
    must({(it["by"], it["source"]) for it in given} == {("label-studio/1", "labelstudio")}, given)
    say("annotations that became labels", len(given))

    check(theirs.post(f"/api/ml/{made['id']}/train", json={}))
    until(lambda: check(ours.get(API)).json()["generation"] == 1, "a new generation", 300)
    retrieve(theirs, project)
    second = predictions(theirs, project, "1")
    compared(second, tasks, SlotModel.load(folder))
    white = [task for task in tasks if names[task] == "white"]
    right = [sum(chosen(found[task]) == "white" for task in white) for found in (first, second)]
    must(right[0] == 0 and right[1] > len(white) / 2, right)
    (state,) = check(theirs.get("/api/ml/", params={"project": project})).json()
    must(state["readable_state"] == "Connected" and state["model_version"] == "1", state)
    say("predicted as the new class, before and after training", right)
    return {
        "label_studio": check(theirs.get("/api/version")).json()["release"],
        "tasks": {"of a query list": len(asked), "its own": len(alone)},
        "predictions": len(first) + len(second),
        "annotations": len(tasks),
        "labels": len(given),
        "of the new class": len(white),
        "predicted as the new class": {"before": right[0], "after": right[1]},
    }


def compared(found, tasks, model):
    """Each task has the prediction that the model gives offline."""
    must(found.keys() == tasks.keys(), f"{len(found)} of {len(tasks)} tasks have predictions")
    x = np.asarray([tasks[task]["features"] for task in found], np.float32)
    names = [model.class_name(int(it)) for it in model.predict(x).labels]
    p_values = model.assess_novelty(x, false_alarm_rate=0.05).p_values
    for it, name, p_value in zip(found.values(), names, p_values, strict=True):
        must(chosen(it) == name and it["score"] == p_value, (it, name, p_value))


def nearest(row, more, truth):
    """The name of one of the rows that Label Studio alone has."""
    return WORDS[truth[int(np.abs(more - np.float32(row)).sum(axis=1).argmin())]]


def labels(ours, n=0):
    """Labels that are there, when there are as many as expected."""

    def there():
        return check(ours.get(f"{API}/labels", params={"limit": 1000})).json()["labels"]

    until(lambda: len(there()) >= n, f"{n} labels", 30)
    return there()


def job_over(ours, number):
    """Wait for a job that must succeed."""
    until(lambda: ours.get(f"/api/v1/jobs/{number}").json()["state"] not in ("queued", "running"), "a job", 300)
    found = check(ours.get(f"/api/v1/jobs/{number}")).json()
    must(found["state"] == "done", found)


def say(what, value):
    """One line of progress."""
    print(f"{what}: {value}", flush=True)


if __name__ == "__main__":
    main()
