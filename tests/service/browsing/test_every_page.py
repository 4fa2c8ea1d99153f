"""Every page in a real browser: no text of others runs as a script, and all can be read by everybody."""

import itertools
import random
import time
from urllib.parse import quote

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from sqlalchemy import insert, update
from support.browsers import check_quiet, window
from support.inbox_rows import put_items, with_database
from support.service import running

from protocols.service.callers import LOCAL, Caller, Role
from protocols.service.gate.keys import add_key, revoke_key
from protocols.service.inbox import labels, reviews, tables
from protocols.service.inbox.events import record
from protocols.service.inbox.labels import Person
from protocols.service.inbox.reviews import Query, QueryList
from slots.training import TrainConfig, fit

pytestmark = pytest.mark.slow

ATTACKS = (
    "<script>ran.push(1)</script>",
    "<img src=x onerror=ran.push(1)>",
    "<svg onload=ran.push(1)>",
    "<svg><script>ran.push(1)</script></svg>",
    "<body onload=ran.push(1)>",
    "<iframe srcdoc='<script>parent.ran.push(1)</script>'></iframe>",
    "<iframe src='javascript:parent.ran.push(1)'></iframe>",
    "<object data='javascript:ran.push(1)'></object>",
    "<embed src='javascript:ran.push(1)'>",
    "<a href='javascript:ran.push(1)'>x</a>",
    "<form action='javascript:ran.push(1)'><button>x</button></form>",
    "<input autofocus onfocus=ran.push(1)>",
    "<details open ontoggle=ran.push(1)>",
    "<video src=x onerror=ran.push(1)></video>",
    "<style>*{background:url(//attack.invalid/x)}</style>",
    "<link rel=stylesheet href=//attack.invalid/x>",
    "<base href=//attack.invalid/>",
    "<meta http-equiv=refresh content='0;url=//attack.invalid/'>",
    "<div hx-get='/api/v1/keys' hx-trigger=load>x</div>",
    "<div hx-on:htmx:load='ran.push(1)'>x</div>",
    "<div data-hx-get=//attack.invalid/ data-hx-trigger=load>x</div>",
    "<marquee onstart=ran.push(1)>x</marquee>",
    "{{ 7 * 7 }}{% raw %}{{ ran.push(1) }}",
    "${ran.push(1)}`${ran.push(1)}`",
    "javascript:ran.push(1)",
    "' onmouseover='ran.push(1)",
    '" onmouseover="ran.push(1)',
    "` onmouseover=`ran.push(1)",
    "&lt;script&gt;ran.push(1)&lt;/script&gt;",
    "&#60;script&#62;ran.push(1)&#60;/script&#62;",
    "\\u003cscript\\u003eran.push(1)\\u003c/script\\u003e",
    "<scr<script>ipt>ran.push(1)</scr</script>ipt>",
    "<math><mi xlink:href='javascript:ran.push(1)'>x</mi></math>",
    "<template><script>ran.push(1)</script></template><noscript><p title='</noscript><img src=x onerror=ran.push(1)>'>",
)
BEFORE = (
    "",
    "'",
    '"',
    "'>",
    '">',
    "</option>",
    "</title>",
    "</textarea>",
    "</script>",
    "-->",
    "]]>",
    "</svg>",
    "` ",
    "&quot;>",
)
AFTER = ("", "<!--", "'", '"', "//", "<", " x=", "</p>")
COMBINED = ["".join(it) for it in itertools.product(BEFORE, ATTACKS, AFTER)]
STRINGS = random.Random(0).sample(COMBINED, 500)

DANGEROUS = (
    "[onerror],[onload],[onfocus],[ontoggle],[onmouseover],[onstart],[style],[srcdoc],iframe,object,embed,base,style,math,"
    "marquee,video,main script,main link,main [src^='x'],[href^='javascript' i],[action^='javascript' i],"
    "[hx-on\\:htmx\\:load],[data-hx-get],[hx-get='/api/v1/keys'],body meta"
)
PATHS = (
    *(f"/models/small{end}" for end in ("", "/slots", "/slots/0", "/explain", "/review", "/clusters", "/history")),
    *("/jobs", "/keys", "/audit", "/login"),
)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A service all of whose names, ids and texts are attacks; its key is entered by whoever looks at it."""
    folder, data = tmp_path_factory.mktemp("hostile") / "small", tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    middles = rng.normal(size=(40, 16))
    y = np.repeat(np.arange(40), 12)
    x = (middles[y] * 3 + rng.normal(0, 0.2, (len(y), 16))).astype(np.float32)
    model, _ = fit(x, y, config=TrainConfig(epochs=1, slots_per_class=1), class_names=tuple(STRINGS[:40]))
    model.save(folder)
    numbers = put_items(data, folder, rng.normal(size=(500, 16)).astype(np.float32))

    def fill(connection):
        for number, text in zip(numbers, STRINGS, strict=True):
            values = {"id": text, "label": text, "answer": "unmatched", "state": "open"}
            if number % 2:
                values |= {"media": "text/plain", "content": text.encode()}
            connection.execute(update(tables.item).where(tables.item.c.number == number).values(**values))
        groups = tuple(Query(part[0], 50, tuple(part)) for part in (numbers[i : i + 50] for i in range(0, 500, 50)))
        number = reviews.put(connection, "small", QueryList(0, 500, 10, 0.9, groups))
        labels.give(connection, dict(zip(numbers, STRINGS, strict=True)), Person(None, STRINGS[0]))
        for group in reviews.groups(connection, number, limit=5):
            connection.execute(
                update(tables.review_group).where(tables.review_group.c.number == group.number).values(state="labelled")
            )
        attacker = Caller(7, STRINGS[1][:128], Role.ADMIN)
        for text in STRINGS[:60]:
            record(connection, attacker, text[:64], model=text[:128], detail={"name": text, text: text})
        for text in STRINGS[:30]:
            key, _ = add_key(connection, LOCAL, text, Role.READ)
            if key.number % 2:
                revoke_key(connection, LOCAL, str(key.number))
        edit = {
            "what": "merge",
            "slots": [0],
            "labels_before": STRINGS[:3],
            "label_after": STRINGS[3],
            "n_remembered": 1,
        }
        changed = [{"slot": 0, "before": STRINGS[4], "after": STRINGS[5], "edited": True, "place": 0}]
        asked = {"what": "merge", "labels": STRINGS[:3], "label": STRINGS[3], "slots": [], "dry_run": True}
        result = {**edit, "changed": changed, "n_in_passing": 0, "dry_run": True, "generation": 1}
        for state, more in (("done", {"result": result}), ("failed", {"error": {"detail": STRINGS[6]}})):
            row = {"model": "small", "kind": "edit", "arguments": asked, "state": state, "by": STRINGS[7][:128]}
            connection.execute(insert(tables.job).values(**row, created=time.time(), **more))
        return add_key(connection, LOCAL, "admin", Role.ADMIN)[1]

    key = with_database(data, fill)
    with running(folder, data) as client:
        yield str(client.base_url).rstrip("/"), key


def enter(page, key):
    page.goto("/login")
    page.get_by_label("Key").fill(key)
    page.get_by_role("button", name="Enter").click()
    page.wait_for_url("**/models/small")


def look(page, path):
    page.goto(path)
    assert page.locator("h1").count() == 1, path
    assert page.locator(DANGEROUS).count() == 0, path
    assert page.evaluate("[...window.ran, ...window.forbidden]") == [], path


def test_no_string_of_others_ever_runs(hostile, browser):
    base, key = hostile
    seen = set()
    with window(browser, base) as (page, watched):
        enter(page, key)
        for path in (*PATHS, "/jobs/1", "/jobs/2", "/models/small/history/diff", "/models/small/explain?item=2"):
            look(page, path)
        for place in range(10):
            look(page, f"/models/small/review?at={place}&more=true")
            seen |= set(page.locator(".pick").evaluate_all("all => all.map(it => it.title)"))
        assert seen == set(STRINGS)
        assert set(page.locator("#names option").evaluate_all("all => all.map(it => it.value)")) == set(STRINGS)
        page.goto("/models/small/review?at=9")
        for text in STRINGS[::100]:  # by the way of scripts, too
            page.locator("#label").fill(text)
            before = page.locator("#review").element_handle()
            page.locator("#label").press("Enter")
            page.wait_for_function("it => !it.isConnected", arg=before)
            assert " ".join(text.split())[:60] in page.locator("#said").inner_text()
            assert page.locator(DANGEROUS).count() == 0
        for text in ATTACKS:  # what an address brings
            for name in ("label", "order", "next"):
                address = "/login" if name == "next" else "/models/small/slots"
                page.goto(f"{address}?{name}={quote(text, safe='')}")
                assert page.locator(DANGEROUS).count() == 0
        check_quiet(page, watched, base)


@pytest.fixture(scope="module")
def told(hostile, browser):
    """What axe finds on each page by its path, in light colours and in dark ones: a page is loaded once for both."""
    base, key = hostile
    axe = Axe()
    told = {"light": {}, "dark": {}}
    with window(browser, base) as (page, _):
        enter(page, key)
        for path in (*PATHS, "/jobs/1", "/jobs/2", "/models/small/history/diff", "/models/small/review?at=0"):
            page.goto(path)
            for scheme, of_scheme in told.items():
                page.emulate_media(color_scheme=scheme)
                assert page.evaluate(f"matchMedia('(prefers-color-scheme: {scheme})').matches")
                found = axe.run(page).response["violations"]
                of_scheme[path] = [(it["id"], [node["html"][:200] for node in it["nodes"][:3]]) for it in found]
    return told


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_can_be_read_by_everybody(told, scheme):
    assert len(told[scheme]) == len(PATHS) + 4
    for path, found in told[scheme].items():
        assert found == [], path


def test_no_page_is_wider_than_a_narrow_window(hostile, browser):
    base, key = hostile
    with window(browser, base, viewport={"width": 320, "height": 640}) as (page, _):
        enter(page, key)
        for path in (*PATHS, "/jobs/1", "/jobs/2"):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth") <= 320, path
