"""A real Chromium that is watched: what it asks for, what its policy forbids, what it says."""

import shutil
from contextlib import contextmanager
from dataclasses import dataclass, field

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
"""Where it lies; None where there is none."""

_WATCH = """
window.ran = [];
window.forbidden = [];
document.addEventListener("securitypolicyviolation", it => {
  window.forbidden.push(`${it.violatedDirective} ${it.blockedURI} ${it.sample}`);
});
"""


@dataclass
class Watched:
    """What happened on the pages of a window.

    Parameters
    ----------
    asked : list of str
        Addresses that were asked for.
    dialogs, errors : list of str
        Texts of alerts; errors of scripts.
    """

    asked: list = field(default_factory=list)
    dialogs: list = field(default_factory=list)
    errors: list = field(default_factory=list)

    def foreign(self, base):
        """Addresses that were asked for on other hosts."""
        return [it for it in self.asked if not it.startswith((base, "data:"))]


@contextmanager
def window(browser, base, **options):
    """A window of its own: the page, and what happens on it."""
    context = browser.new_context(base_url=base, **options)
    context.set_default_timeout(180_000)  # a job on a busy machine
    context.add_init_script(_WATCH)
    watched = Watched()
    page = context.new_page()
    page.on("request", lambda it: watched.asked.append(it.url))
    page.on("pageerror", lambda it: watched.errors.append(str(it)))
    page.on("dialog", lambda it: (watched.dialogs.append(it.message), it.dismiss()))
    try:
        yield page, watched
    finally:
        context.close()


def check_quiet(page, watched, base):
    """Nothing was asked of another host, nothing was forbidden, nothing went wrong."""
    assert watched.foreign(base) == []
    assert watched.errors == []
    assert watched.dialogs == []
    assert page.evaluate("[...window.ran, ...window.forbidden]") == []
