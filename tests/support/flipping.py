"""A file whose content is replaced again and again, from a process of its own, which nothing else keeps waiting.

    python tests/support/flipping.py FILE SECONDS < contents.json      # until its standard input is closed

The contents are a list, and one line is read first. Each takes its turn at its time; what is late is left out.
"""

import itertools
import json
import os
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen


def flip(path, seconds, contents, over):
    """Replace a file by the content whose turn it is; the seconds between two of them."""
    began, times = time.monotonic(), []
    while True:
        turn = int((time.monotonic() - began) / seconds)
        if turn >= len(contents):
            break
        aside = path.with_name(path.name + ".aside")
        aside.write_text(contents[turn])
        os.replace(aside, path)
        times.append(time.monotonic())
        if over.wait(max(0.0, began + (turn + 1) * seconds - time.monotonic())):
            break
    return [later - one for one, later in itertools.pairwise(times)]


@contextmanager
def flipped(path, seconds, contents):
    """While this lasts, contents take turns; what is given is filled with the seconds between them at the end."""
    command = [sys.executable, __file__, str(path), str(seconds)]
    between = []
    with Popen(command, stdin=PIPE, stdout=PIPE, text=True) as process:
        process.stdin.write(json.dumps(contents) + "\n")
        process.stdin.flush()
        try:
            yield between
        finally:
            between += json.loads(process.communicate()[0])


def main():
    """Flip until nobody listens any more."""
    contents, over = json.loads(sys.stdin.readline()), threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    json.dump(flip(Path(sys.argv[1]), float(sys.argv[2]), contents, over), sys.stdout)


if __name__ == "__main__":
    main()
