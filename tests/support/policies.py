"""What a page's Content-Security-Policy lets in, checked as a browser would."""

import base64
import hashlib
import re
from html.parser import HTMLParser

STRICT = {
    "default-src": "'none'",
    "style-src-attr": "'unsafe-inline'",
    "img-src": "data:",
    "base-uri": "'none'",
    "form-action": "'none'",
}


class _Raw(HTMLParser):
    """The text of each style and script element, the tags before the policy, and attributes that run code."""

    def __init__(self):
        super().__init__()
        self.policy, self.before, self.raw, self.inside, self.handlers = None, [], [], None, []

    def handle_starttag(self, tag, attrs):
        named = dict(attrs)
        if named.get("http-equiv") == "Content-Security-Policy":
            assert self.policy is None
            self.policy = named["content"]
        elif self.policy is None:
            self.before.append(tag)
        self.handlers += [name for name in named if name.startswith("on")]
        if tag in ("style", "script"):
            self.inside = tag
            self.raw.append([tag, ""])

    def handle_endtag(self, tag):
        if tag == self.inside:
            self.inside = None

    def handle_data(self, data):
        if self.inside:
            self.raw[-1][1] += data


def refused(text):
    """Elements of a page that its policy keeps a browser from obeying; the policy itself must be strict, and first."""
    page = _Raw()
    page.feed(text)
    assert page.policy is not None, "the page has no policy"
    assert set(page.before) <= {"html", "head", "meta"}
    rules = dict(rule.strip().split(" ", 1) for rule in page.policy.split(";"))
    assert {name: rules[name] for name in STRICT} == STRICT
    for name in ("script-src", "style-src"):
        assert re.fullmatch(r"'none'|'sha256-[A-Za-z0-9+/]{43}='", rules[name])
    digests = [
        (tag, f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'")
        for tag, content in page.raw
    ]
    return [tag for tag, digest in digests if rules[f"{tag}-src"] != digest] + page.handlers
