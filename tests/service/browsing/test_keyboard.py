"""The review in a real browser, by keyboard alone; and with scripts turned off."""

import re

import pytest
from support.browsers import check_quiet, window
from support.inbox_rows import items, put_items, put_labels, with_database
from support.service import rows, running

from protocols.service.inbox import labels, reviews
from protocols.service.inbox.reviews import Query, QueryList
from slots.storage.generations import log

pytestmark = pytest.mark.slow

REVIEW = "/models/small/review"
NAMES = ("red", "green", "blue", "sable")
X, Y = rows(900, 11, classes=4)
SIZE, GROUPS = 4, 30


@pytest.fixture
def served(own, tmp_path):
    """A service whose newest query list has thirty groups of four unmatched items, each of one class."""
    data = tmp_path / "data"
    numbers = put_items(data, own, X)
    known = items(data)
    unmatched = [it for it in numbers if known[it]["answer"] == "unmatched"]
    groups = []
    for label in range(4):
        of_label = [it for it in unmatched if Y[it - 1] == label]
        groups += [tuple(of_label[start : start + SIZE]) for start in range(0, len(of_label) - SIZE + 1, SIZE)]
    asked = QueryList(0, len(unmatched), GROUPS, 0.9, tuple(Query(it[0], SIZE, it) for it in groups[:GROUPS]))
    with_database(data, lambda it: reviews.put(it, "small", asked))
    with running(own, data) as client:
        yield client, own, data, [Y[it[0] - 1] for it in groups[:GROUPS]]


def said(page):
    return page.locator("#said").inner_text()


def press(page, keys):
    """Press keys, the last of which does something, and wait for what is said of it."""
    before = page.locator("#review").element_handle()
    for key in keys:
        page.keyboard.press(key)
    page.wait_for_function("it => !it.isConnected && document.getElementById('said').textContent", arg=before)
    return said(page)


def focus(page, words):
    """Go to a button by the Tab key."""
    for _ in range(80):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.matches('button') ? document.activeElement.innerText : ''") == words:
            return
    raise AssertionError(f"no way to {words!r} by the Tab key")


def test_thirty_groups_an_update_and_an_undo_by_keyboard_alone(served, browser):
    client, folder, data, truth = served
    assert len(truth) == GROUPS
    base = str(client.base_url).rstrip("/")
    with window(browser, base) as (page, watched):
        page.goto(REVIEW)
        assert page.evaluate("document.activeElement.id") == "review"
        assert press(page, ["s"]).startswith(f"Skipped. Group 2 of {GROUPS}")
        assert press(page, ["u"]).startswith(f"Undone: a skip. Group 1 of {GROUPS}")
        page.keyboard.press("ArrowRight")  # to the first item, then the second
        page.keyboard.press("ArrowRight")
        second = page.evaluate("document.activeElement.id")
        assert press(page, ["x"]).startswith(f"Thrown out. Group 1 of {GROUPS}: {SIZE - 1} items")
        assert page.evaluate("document.activeElement.id") == second
        assert page.locator(f"#{second}").get_attribute("aria-pressed") == "true"
        assert press(page, ["x"]).startswith("Taken in again.")
        assert press(page, ["u"]).startswith("Undone: what was thrown out.")  # so it is out, as after the first x

        for place, label in enumerate(truth):
            name = NAMES[label]
            offer = page.locator(".offer", has_text=name)
            if place % 2 and offer.count():
                told = press(page, [offer.get_attribute("data-key")])
            else:
                slash = ["/"] if name[0] in "sux" else []  # any other letter begins a name by itself
                told = press(page, [*slash, *name, "Enter"])
            n = SIZE - 1 if place == 0 else SIZE
            assert told.startswith(f"Labelled {n} items “{name}”."), told
            assert page.evaluate("document.activeElement.id") == "review"
        assert told.endswith("No group is open any more.")
        given = with_database(data, lambda it: labels.used(it, "small"))
        assert sum(given.values()) == SIZE * GROUPS - 1
        assert given["sable"] == SIZE * truth.count(3) > 0

        focus(page, "Update")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Learn it").wait_for()
        assert "Proven: no matched answer would change." in page.locator("#job").inner_text()
        focus(page, "Learn it")
        page.keyboard.press("Enter")
        page.get_by_role("button", name="Undo").wait_for()
        assert "Proven: no matched answer changed." in page.locator("#job").inner_text()
        assert [it.what for it in log(folder)][1:] == ["update"]
        focus(page, "Undo")
        page.keyboard.press("Enter")
        page.wait_for_url("**/history")
        assert "generation 2 answers now, with the content of generation 0" in page.locator(".told").inner_text()
        assert [it.content for it in log(folder)] == [0, 1, 0]
        check_quiet(page, watched, base)


def test_what_came_of_grouping_stands_in_the_box_of_further_acts(own, tmp_path, browser):
    put_items(tmp_path, own, X[:100])
    put_labels(tmp_path, dict(zip(range(1, 12), ["ten", *"0123456789"], strict=True)))
    # A job that begins with a new process is followed to its end, and then leads on by itself.
    with running(own, tmp_path, warm=False) as client, window(browser, str(client.base_url)) as (page, watched):
        page.goto(REVIEW)
        page.get_by_role("button", name="Group them").click()
        page.locator("#said", has_text="settles most doubt").wait_for()
        told = r"\d+ groups? holds? \d+ items, what settles most doubt first; \d+ are unmatched\."
        assert re.fullmatch(told, said(page))
        assert page.get_by_role("status").count() == 1
        assert re.match(r"Labelled \d+ items? “9”\. ", press(page, ["9"]))  # though eleven names are in use
        assert page.get_by_role("status").count() == 1
        check_quiet(page, watched, str(client.base_url).rstrip("/"))


def test_keys_do_nothing_while_a_name_is_written(served, browser):
    client, _, data, _ = served
    with window(browser, str(client.base_url)) as (page, _):
        page.goto(REVIEW)
        page.keyboard.press("z")
        page.keyboard.type("usx1")
        assert page.locator("#label").input_value() == "zusx1"
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "review"
        page.keyboard.press("?")
        assert page.locator("#keys").evaluate("it => it.open")
        page.locator("#label").fill("")
        page.locator("#label").press("Enter")  # an empty name is no name
        assert all(it["state"] == "open" for it in items(data).values())
        assert page.locator("#group-title").inner_text().startswith("Group 1 of")


def test_without_scripts_it_works_by_forms(served, browser):
    client, _, data, _ = served
    base = str(client.base_url).rstrip("/")
    with window(browser, base, java_script_enabled=False) as (page, watched):
        page.goto(REVIEW)
        page.get_by_label("Name of the group").fill("sable")
        page.get_by_role("button", name="Label the group").click()
        assert page.locator(".told").inner_text() == f"Labelled {SIZE} items “sable”."
        page.get_by_role("button", name="Skip s").click()
        assert page.locator("#group-title").inner_text().startswith("Group 3 of")
        page.get_by_role("button", name="Undo u").click()
        page.get_by_role("button", name="Undo u").click()
        assert page.locator(".told").inner_text() == f"Undone: the label of {SIZE} items."
        assert all(it["state"] == "open" for it in items(data).values())
        assert watched.foreign(base) == []


def test_the_overview_goes_on_by_itself(served, browser):
    client, _, _, _ = served
    base = str(client.base_url).rstrip("/")
    with window(browser, base) as (page, watched):
        page.goto("/models/small")
        assert "nothing was asked yet" in page.locator("#live").inner_text()
        client.post("/api/v1/models/small/predict", json={"inputs": X[:7].tolist()})
        page.wait_for_function("() => document.querySelector('#live').innerText.includes('highest column: 7 answers')")
        check_quiet(page, watched, base)
