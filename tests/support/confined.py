"""A command under the filter of system calls that a unit of systemd asks for, without systemd running.

    python tests/support/confined.py deploy/slots.service serve MODEL --data DIR

`systemd-analyze syscall-filter` says what the sets of the unit's ``SystemCallFilter`` hold, libseccomp loads them into
this process, and the command of ours that follows is run in it; its children inherit the filter, as they would there.
"""

import ctypes
import ctypes.util
import errno
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

ALLOW, ERROR = 0x7FFF0000, 0x00050000 | errno.EPERM  # SCMP_ACT_ALLOW, SCMP_ACT_ERRNO(EPERM)


def sets():
    """Members of each set of system calls, other sets among them, by its name."""
    said = subprocess.run(
        ["systemd-analyze", "syscall-filter", "--no-pager"], capture_output=True, text=True, check=True
    )
    found, members = {}, []
    for line in re.sub(r"\x1b\[[0-9;]*m", "", said.stdout).splitlines():
        word = line.strip()
        if line.startswith("@"):
            members = found[word] = []
        elif word and not word.startswith("#") and line[0] == " ":
            members.append(word)
    return found


def expanded(name, known):
    """Names of the calls that a set stands for, or a call's own."""
    return {it for member in known[name] for it in expanded(member, known)} if name.startswith("@") else {name}


def allowed(unit):
    """Names of the calls that a unit lets through."""
    known, names = sets(), set()
    for words in re.findall(r"^SystemCallFilter=(.+)$", unit, re.MULTILINE):
        listed = {it for word in words.lstrip("~").split() for it in expanded(word, known)}
        names = names - listed if words.startswith("~") else names | listed
    return names


def confine(names):
    """Load a filter that lets these calls through, and answers all others with EPERM."""
    library = ctypes.CDLL(ctypes.util.find_library("seccomp") or "libseccomp.so.2")
    library.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(ERROR)))
    for name in sorted(names):
        number = library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:  # else it is one of another processor
            assert library.seccomp_rule_add(context, ctypes.c_uint32(ALLOW), number, 0) == 0, name
    assert library.seccomp_load(context) == 0


def main():
    unit, *words = sys.argv[1:]
    confine(allowed(Path(unit).read_text()))
    try:
        os.chown(unit, -1, -1)  # changes nothing, and is one of those that are kept out
    except PermissionError:
        sys.argv = ["slots", *words]
        runpy.run_module("protocols.commands", run_name="__main__")
    else:
        raise SystemExit("The filter was not loaded.")


if __name__ == "__main__":
    main()
