"""What is installed is pinned, whole, has its digests and its licence; and the lowest versions are those tested."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import packaging
import pytest
from support import audit, minimum, pins
from support.installed import damaged, installed, licence, reached, scopes
from support.sites import lay, small_site

ROOT = Path(__file__).parent.parent
OWN = [sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
SAME_BUILD = pytest.mark.skipif(os.environ.get("SLOTS_TEST_WHEEL") != "1", reason="only `make test` installs the pins")
DIGEST = "0" * 64


@pytest.fixture
def site(tmp_path):
    return small_site(tmp_path)


# --- pins and digests


def test_every_pin_has_digests_and_every_digest_a_pin():
    named = pins.read_hashes(pins.HASHES.read_text())
    assert pins.differences(pins.read_pins(pins.CONSTRAINTS.read_text()), named) == []
    assert len(named) > 100


def test_the_tools_are_pinned_with_what_they_need():
    asked = [line for line in pins.TOOLS.read_text().splitlines() if not line.startswith("#")]
    text = pins.TOOLS.with_suffix(".txt").read_text()
    for line in asked:
        name, version = line.split("==")
        assert f"\n{name.split('[')[0]}=={version} \\\n    --hash=sha256:" in text


@pytest.mark.parametrize("path", [pins.CONSTRAINTS, pins.HASHES, pins.TOOLS, pins.TOOLS.with_suffix(".txt")])
def test_no_file_of_pins_names_a_host_or_an_option(path):
    words = path.read_text().split()
    assert not [word for word in words if "://" in word]
    assert {word.split("=")[0] for word in words if word.startswith("--")} <= {"--hash", "--require-hashes"}


def test_names_are_compared_as_packaging_writes_them():
    assert pins.read_pins("# a comment\nML_dtypes==0.5\nzope.event==6.2\n") == {"ml-dtypes": "0.5", "zope-event": "6.2"}


@pytest.mark.parametrize(
    "line", ["torch>=2", "torch==2.9 ; python_version < '4'", "--index-url x", "torch==2.9+cpu", "torch"]
)
def test_a_pin_is_a_name_and_a_version(line):
    with pytest.raises(ValueError, match="Expected NAME==VERSION and nothing else, got"):
        pins.read_pins(line)


def test_one_pin_a_name():
    with pytest.raises(ValueError, match=r"ml-dtypes is pinned twice. Keep one of the two lines"):
        pins.read_pins("ml_dtypes==1\nml-dtypes==1\n")


def test_digests_are_read_over_continued_lines():
    text = f"# a\nB_b==1 \\\n    --hash=sha256:{DIGEST} \\\n    --hash=sha256:{'f' * 64}\nc==2 --hash=sha256:{DIGEST}\n"
    assert pins.read_hashes(text) == {"b-b": ("1", frozenset({DIGEST, "f" * 64})), "c": ("2", frozenset({DIGEST}))}


@pytest.mark.parametrize("words", ["", "--hash=sha256:00", f"--hash=md5:{DIGEST}", f"--hash=sha256:{DIGEST} --pre"])
def test_only_whole_sha256_digests_count(words):
    with pytest.raises(ValueError, match=r"Expected only sha256 digests of b, got .* Run `make hashes`"):
        pins.read_hashes(f"b==1 {words}")


def test_differences_are_named():
    there = {name: (version, frozenset({DIGEST})) for name, version in {"b": "2", "c": "1"}.items()}
    assert pins.differences({"a": "1", "b": "1"}, there) == [
        "a==1 has no digests. Run `make hashes`.",
        "c has digests and no pin. Run `make hashes`.",
        "b is pinned at 1, the digests are of 2. Run `make hashes`.",
    ]


def test_a_withdrawn_version_is_seen():
    said = 'Resolved 1 package in 103ms\nwarning: `attrs==21.1.0` is yanked (reason: "not importable on Python 3.4.")'
    assert pins.withdrawn(said) == said.splitlines()[1:]


# --- what is installed


def test_who_needs_what(site):
    found = installed([str(site)])
    assert reached(found) == {"tensors", "maths", "quick"}
    assert scopes(found) == {
        "tensors": "required",
        "maths": "required",
        "quick": "required",
        "web-server": "optional",
        "checker": "excluded",
    }


@pytest.mark.parametrize(
    ("headers", "named"),
    [
        (["License-Expression: mit OR apache-2.0"], "MIT OR Apache-2.0"),
        (["License: bsd-3-clause"], "BSD-3-Clause"),
        (["License: BSD", "Classifier: License :: OSI Approved :: BSD License"], "BSD License"),
        (["Classifier: License :: OSI Approved", "License: Apache License 2.0"], "Apache License 2.0"),
        (["License: UNKNOWN"], None),
        (["Classifier: Typing :: Typed"], None),
    ],
)
def test_a_licence_is_read_where_metadata_has_it(headers, named, tmp_path):
    lay(tmp_path, "thing", headers=headers)
    assert licence(installed([str(tmp_path)])["thing"]) == named


@pytest.mark.parametrize(
    ("text", "named"), [("\nMIT License\n\nCopyright", "MIT License"), ("Copyright 2026\nMIT License", None)]
)
def test_without_one_the_title_of_its_text_counts(text, named, tmp_path):
    put = {"thing-1.0.dist-info/licenses/LICENSE": text}
    lay(tmp_path, "thing", headers=["License-File: LICENSE"], files=put)
    assert licence(installed([str(tmp_path)])["thing"]) == named


def test_a_copyleft_library_is_no_need_of_users_but_may_test(site):
    assert audit.licences(installed([str(site)])) == []
    lay(site, "quick", headers=["License-Expression: GPL-3.0-or-later"])
    lay(site, "web.server")
    assert audit.licences(installed([str(site)])) == [
        "quick (GPL-3.0-or-later) may not be something that users need.",
        "web-server names no licence. Read its pages, then name it in READ_BY_HAND.",
    ]


def test_what_has_another_version_or_no_pin_is_named(site):
    wanted = {"tensors": "2.2", "maths": "1.0", "quick": "1.0", "web-server": "1.0"}
    assert audit.unpinned(installed([str(site)]), wanted) == [
        "checker 1.0 is installed, and has no pin.",
        "tensors 2.1 is installed, and pinned at 2.2.",
    ]


def test_needs_that_are_not_met_are_named(site):
    assert audit.unmet(installed([str(site)])) == []
    shutil.rmtree(site / "maths-1.0.dist-info")
    shutil.rmtree(site / "tensors-2.1.dist-info")
    lay(site, "tensors", "1.9", ["Requires-Dist: maths"])
    assert audit.unmet(installed([str(site)])) == [
        "neural-slots needs tensors>=2, and 1.9 is installed.",
        "tensors needs maths, which is not installed.",
    ]


def test_a_changed_or_missing_file_is_found(site):
    found = installed([str(site)])
    assert audit.changed(found) == []
    (site / "maths.py").write_text("two = 1 + 2\n")
    assert audit.changed(found) == ["maths: 1 files are missing or not as its wheel recorded them, first maths.py."]
    (site / "maths.py").unlink()
    assert damaged(found["maths"]) == ["maths.py"]
    (site / "maths-1.0.dist-info" / "RECORD").unlink()
    assert damaged(installed([str(site)])["maths"]) == ["RECORD"]


def test_a_library_as_pip_lays_it_is_whole_until_a_byte_changes(tmp_path):
    (info,) = Path(packaging.__file__).parents[1].glob("packaging-*.dist-info")
    for folder in (Path(packaging.__file__).parent, info):
        shutil.copytree(folder, tmp_path / folder.name)
    found = installed([str(tmp_path)])["packaging"]
    assert damaged(found) == []
    with (tmp_path / "packaging" / "version.py").open("a") as file:
        file.write("#")
    assert damaged(found) == ["packaging/version.py"]


@SAME_BUILD
def test_this_environment_is_as_pinned_and_under_known_licences():
    found = installed(OWN)
    assert audit.unpinned(found, pins.read_pins(pins.CONSTRAINTS.read_text())) == []
    assert audit.unmet(found) == []
    assert audit.licences(found) == []


def test_the_command_says_each_thing_in_a_line_and_fails(site):
    command = [sys.executable, str(ROOT / "tests/support/audit.py"), "--site", str(site)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines() == [
        f"{name} is installed, and has no pin."
        for name in ("checker 1.0", "maths 1.0", "quick 1.0", "tensors 2.1", "web-server 1.0")
    ]


# --- known weaknesses


def test_a_database_that_does_not_answer_is_no_good_news():
    report = {"dependencies": [{"name": name, "skip_reason": "not found"} for name in ("a", "b")], "fixes": []}
    assert audit.weaknesses(report, {"a": "1", "b": "2"}) == [
        "The advisory database did not answer for 2 of 2 pins, so nothing is known of them (a is the first). "
        "Try again where it can be reached."
    ]


def test_weaknesses_are_named_with_what_mends_them():
    known = [{"id": "CVE-2026-1", "fix_versions": ["1.1", "2.0"]}, {"id": "CVE-2026-2", "fix_versions": []}]
    report = {
        "dependencies": [{"name": "A_b", "version": "1", "vulns": known}, {"name": "c", "version": "3", "vulns": []}]
    }
    assert audit.weaknesses(report, {"a-b": "1", "c": "3"}) == [
        "a-b 1 has the known weakness CVE-2026-1, mended in 1.1, 2.0.",
        "a-b 1 has the known weakness CVE-2026-2, not mended in any version.",
    ]
    assert len(audit.weaknesses(report, {"a-b": "1", "c": "4"})) == 3  # an answer about another version is none


def test_a_database_that_cannot_be_asked_is_one_line(tmp_path):
    broken = tmp_path / "pip-audit"
    broken.write_text(f"#!{sys.executable}\nraise SystemExit('no such host')\n")
    broken.chmod(0o755)
    (line,) = audit.advisories(str(broken))
    assert line.startswith("The advisory database could not be asked about ")
    assert line.endswith(" pins: no such host")


# --- the lowest versions

PROJECT = """
[project]
dependencies = ["torch>=2.9", "Jinja2>=3.1,<4"]
[project.optional-dependencies]
serve = ["uvicorn[standard]>=0.32; sys_platform != 'win32'"]
"""


def test_the_lowest_versions_are_those_that_get_tested():
    assert (
        minimum.untested(PROJECT, "jinja2==3.1.0\ntorch==2.9.0\nuvicorn==0.32\nother==7 ; python_version > '3'\n") == []
    )
    assert minimum.untested(PROJECT, "# jinja2==3.1\njinja2==3.1.3\n    # via torch==1\ntorch==2.9.1\n") == [
        "pyproject.toml states jinja2>=3.1, and the lowest set that goes together has 3.1.3: state that.",
        "pyproject.toml states torch>=2.9, and the lowest set that goes together has 2.9.1: state that.",
    ]


def test_every_requirement_states_a_lowest_version():
    assert len(minimum.stated((ROOT / "pyproject.toml").read_text())) > 30


def test_make_help_names_every_target():
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    named = {line.split()[1] for line in done.stdout.splitlines()}
    assert named >= {"test", "test-minimum", "audit", "sbom", "hashes", "clean"}
