"""An HTML page as its sections, pictures, links and texts; a page that is not well formed raises."""

import base64
import io
import time
from dataclasses import dataclass, field
from html.parser import HTMLParser

import numpy as np
from PIL import Image

VOID = {"meta", "link", "img", "input", "br"}


@dataclass
class Element:
    tag: str
    attributes: dict
    children: list = field(default_factory=list)

    @property
    def text(self):
        return " ".join("".join(self._texts()).split())

    def _texts(self):
        for child in self.children:
            if isinstance(child, str):
                yield child
            else:
                yield from child._texts()
                yield " "

    def all(self, tag, **attributes):
        """Every element below with this tag and these attributes; ``cls`` is one of its classes."""
        wanted = attributes.pop("cls", None)
        return [
            element
            for element in self._walk()
            if element.tag == tag
            and (wanted is None or wanted in element.attributes.get("class", "").split())
            and all(element.attributes.get(key) == value for key, value in attributes.items())
        ]

    def by_id(self, name):
        (found,) = [element for element in self._walk() if element.attributes.get("id") == name]
        return found

    def _walk(self):
        for child in self.children:
            if not isinstance(child, str):
                yield child
                yield from child._walk()

    def pixels(self):
        """What a picture with a data address shows."""
        head, data = self.attributes["src"].split(",")
        assert head == "data:image/png;base64"
        image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
        return np.asarray(image.convert("RGB" if image.mode == "P" else image.mode))


class _Parser(HTMLParser):
    def __init__(self):
        super().__init__()
        self.stack = [Element("page", {})]

    def handle_starttag(self, tag, attrs):
        assert len(dict(attrs)) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs))
        self.stack[-1].children.append(element)
        if tag not in VOID:
            self.stack.append(element)

    def handle_endtag(self, tag):
        assert self.stack[-1].tag == tag, f"</{tag}> closes <{self.stack[-1].tag}> at {self.getpos()}"
        self.stack.pop()

    def handle_data(self, data):
        self.stack[-1].children.append(data)


def parse(text):
    parser = _Parser()
    parser.feed(text)
    parser.close()
    assert len(parser.stack) == 1, f"<{parser.stack[-1].tag}> is never closed"
    return parser.stack[0]


def asked_for(page):
    """Every address that a browser would look at."""
    names = ("src", "href", "srcset", "action", "poster", "data")
    return [e.attributes[name] for e in page._walk() for name in names if name in e.attributes]


def wait(client, within=120):
    """Until no job runs; the last one."""
    until = time.monotonic() + within
    while time.monotonic() < until:
        last = client.get("/api/v1/jobs").json()[0]
        if last["state"] not in ("queued", "running"):
            return last
        time.sleep(0.05)
    raise AssertionError(last)


def press(client, page, words, **fields):
    """Send the form of a button as a browser without scripts would."""
    parsed = parse(page.text)
    for form in parsed.all("form"):
        for button in form.all("button"):
            if button.text != words:
                continue
            sent = {it.attributes["name"]: it.attributes.get("value", "") for it in form.all("input", type="hidden")}
            if "name" in button.attributes:
                sent[button.attributes["name"]] = button.attributes["value"]
            action = button.attributes.get("formaction", form.attributes["action"])
            found = client.post(action, data={**sent, **fields})
            assert found.status_code == 200, found.text
            return found
    raise AssertionError(f"no button {words!r} in {parsed.text}")
