"""The doctor finds what is wrong with real (small) installations, and says the line that mends it."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from torch.cuda import device_count

import slots
from protocols.app import doctor
from protocols.app.doctor import Finding
from protocols.commands import main


def install(folder, name, version="1.0", files=()):
    """Lay a distribution out as pip does: its files, and a dist-info folder that records them."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for file, text in dict(files).items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text)
    (info / "RECORD").write_text("".join(f"{file},,\n" for file in dict(files)))
    return info


HOME = Path(doctor.__file__).parents[2]
OURS = {
    "slots/__init__.py": f'"""Ours."""\n\n__version__ = "{slots.__version__}"\n',
    "backbones/__init__.py": "",
    "protocols/__init__.py": "",
}
REINSTALL = "pip install --force-reinstall --no-deps neural-slots"


@pytest.fixture
def site(tmp_path):
    folder = tmp_path / "site-packages"
    install(folder, "neural-slots", slots.__version__, OURS)
    install(folder, "numpy", files={"numpy/__init__.py": "", "numpy/slots/__init__.py": ""})
    return folder


def executable(path, text):
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A folder with a `slots` that is another's, and that nothing may import."""
    folder = tmp_path_factory.mktemp("foreign")
    (folder / "slots.py").write_text("raise ImportError('of the foreign package')\n")
    return folder


@pytest.fixture(scope="module")
def answers(foreign):
    """What is tried in processes of their own says the same of this installation each time: it is tried once.

    Another's `slots` is first on their path, for what is tried needs nothing of ours.
    """
    really = doctor._try

    @functools.cache
    def once(code, _devices):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("PYTHONPATH", f"{foreign}:{HOME}")
            return really(code)

    return lambda code: once(code, os.environ.get("CUDA_VISIBLE_DEVICES"))


@pytest.fixture
def asked_once(answers, monkeypatch):
    monkeypatch.setattr(doctor, "_try", answers)


@pytest.fixture
def no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin" / "nvidia-smi"


# The packages


def test_a_sound_installation(site):
    finding = doctor.check_packages([str(site)], root=site)
    assert finding == Finding("packages", True, f"neural-slots {slots.__version__} in {site}")


@pytest.mark.parametrize("name", ["slots", "slots-cli", "Slots_Other"])
@pytest.mark.parametrize("package", ["slots", "backbones", "protocols"])
def test_another_distribution_with_a_package_of_ours(site, name, package):
    install(site, name, files={f"{package}/__init__.py": '__version__ = "0.4.0"\n'})
    finding = doctor.check_packages([str(site)], root=site)
    shown = name.lower().replace("_", "-")
    assert not finding.ok
    assert finding.message == f"the distribution '{shown}' in {site} installs a package '{package}' too"
    assert finding.fix == f"pip uninstall -y {shown} && {REINSTALL}"


def test_distributions_that_only_list_their_packages_or_install_modules(site):
    (install(site, "old") / "top_level.txt").write_text("tests\nslots\nprotocols\n")
    install(site, "single", files={"backbones.py": "", "my/slots.py": ""})
    findings = doctor.find_foreign([str(site)], root=site)
    assert [finding.message for finding in findings] == [
        f"the distribution 'old' in {site} installs packages 'slots' and 'protocols' too",
        f"the distribution 'single' in {site} installs a package 'backbones' too",
    ]
    assert {finding.fix for finding in findings} == {f"pip uninstall -y old single && {REINSTALL}"}


@pytest.mark.parametrize("part", OURS)
def test_a_part_that_is_missing(site, part):
    (site / part).unlink()
    finding = doctor.check_packages([str(site)], root=site)
    assert not finding.ok
    assert finding.message == f"{part} is missing in {site}"
    assert finding.fix == "pip install --force-reinstall --no-deps neural-slots"


@pytest.mark.parametrize(("text", "said"), [('__version__ = "0.0.9"\n', "0.0.9"), ("", "None")])
def test_a_version_that_is_not_the_installed_one(site, text, said):
    (site / "slots" / "__init__.py").write_text(text)
    finding = doctor.check_packages([str(site)], root=site)
    assert not finding.ok
    assert finding.message == f"neural-slots is {slots.__version__}, but slots says {said}"
    assert finding.fix == "pip install --force-reinstall --no-deps neural-slots"


def test_a_checkout_that_is_not_installed(site):
    finding = doctor.check_packages([], root=site)
    assert not finding.ok
    assert finding.message == f"neural-slots is not installed; {site} is used"
    assert finding.fix == "pip install neural-slots"


COMMAND = "import sys; from protocols.commands import main; main(sys.argv[1:])"
TOLD = """
import json, sys
from protocols.app import doctor
really, told = doctor._try, json.loads(sys.argv.pop(1))
doctor._try = lambda code: told if code == doctor._TRY_TORCH else really(code)
"""


def command(foreign, monkeypatch, *arguments, code=COMMAND):
    """The command with a folder before our packages on the path, as PYTHONPATH does it."""
    monkeypatch.setenv("PYTHONPATH", f"{foreign}:{HOME}")
    return subprocess.run([sys.executable, "-P", "-c", code, *arguments], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("file", ["slots/__init__.py", "backbones/__init__.py", "protocols/__init__.py", "slots.py"])
def test_a_foreign_package_that_comes_first(tmp_path, monkeypatch, file):
    """With ``protocols`` another's too, nothing of ours starts by its name; the file itself still tells."""
    foreign = tmp_path / file
    foreign.parent.mkdir(exist_ok=True)
    foreign.write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{HOME}")
    code = "import runpy, sys; print(*runpy.run_path(sys.argv[1])['find_foreign'](sys.path), sep='\\n')"
    command = [sys.executable, "-P", "-c", code, doctor.__file__]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    package, thing = file.partition("/")[0].removesuffix(".py"), foreign.parent if "/" in file else foreign
    fix = f"rename or remove {thing}, or take {tmp_path} off the import path (PYTHONPATH)"
    message = f"'{package}' is taken from {foreign}, which is not ours"
    assert done.stdout == f"{Finding('packages', False, message, fix)}\n"


@pytest.mark.slow
def test_the_doctor_runs_where_slots_is_not_ours(foreign, answers, monkeypatch):
    """What torch says on such a path is asked once for the whole file, and told; the rest is tried here."""
    torch = json.dumps(answers(doctor._TRY_TORCH))
    done = command(foreign, monkeypatch, torch, "doctor", "--json", code=TOLD + COMMAND)
    assert done.returncode == 1, done.stderr
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)["findings"]}
    assert findings["packages"]["message"] == f"'slots' is taken from {foreign / 'slots.py'}, which is not ours"
    assert findings["torch"]["ok"]


def test_other_commands_say_in_one_line_that_a_package_is_foreign(tmp_path, monkeypatch):
    install(tmp_path, "slots", files={"slots/__init__.py": "", "slots/reels.py": ""})
    done = command(tmp_path, monkeypatch, "show", "model")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Error: the distribution 'slots' in {tmp_path} installs a package 'slots' too. "
        f"Mend it: pip uninstall -y slots && {REINSTALL}\n"
    )
    assert command(tmp_path, monkeypatch, "--help").returncode == 0


def test_a_foreign_package_that_comes_last_is_no_matter(tmp_path, monkeypatch):
    (tmp_path / "slots.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", f"{HOME}:{tmp_path}")
    code = "import sys; from protocols.app.doctor import find_foreign; print(find_foreign(sys.path))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# FAISS


def broken(folder, name, error):
    (folder / name).mkdir(parents=True)
    (folder / name / "__init__.py").write_text(f"raise {error}\n")


WORKING_FAISS = """
__version__ = "9.9"
class IndexFlatIP:
    def __init__(self, d): pass
    def add(self, x): self.x = x
    def search(self, x, k): return None, (x @ self.x.T).argmax(1)
"""


def test_no_faiss(tmp_path, no_driver):
    finding = doctor.check_faiss([str(tmp_path)])
    assert finding.ok
    assert finding.message == "not installed; search runs in torch"
    assert finding.fix == "for quicker search: pip install 'neural-slots[faiss-cpu]'"
    executable(no_driver, "#!/bin/sh\nexit 0\n")
    assert doctor.check_faiss([str(tmp_path)]).fix.endswith("'neural-slots[faiss-gpu]'")
    executable(no_driver, "#!/bin/sh\nexit 9\n")
    assert doctor.check_faiss([str(tmp_path)]).fix.endswith("'neural-slots[faiss-cpu]'")


@pytest.mark.parametrize("name", ["faiss-cpu", "faiss_cpu", "faiss-gpu"])
def test_one_faiss(tmp_path, monkeypatch, name):
    install(tmp_path, name, files={"faiss/__init__.py": WORKING_FAISS})
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.check_faiss([str(tmp_path)])
    assert finding == Finding("faiss", True, f"{name.replace('_', '-')} 9.9")


def test_one_faiss_that_does_not_work(tmp_path, monkeypatch, no_driver):
    install(tmp_path, "faiss-cpu")
    broken(tmp_path, "faiss", "ImportError('libfaiss is gone')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.check_faiss([str(tmp_path)])
    assert not finding.ok
    assert finding.message == "faiss-cpu is installed, but: ImportError: libfaiss is gone"
    assert finding.fix == "pip uninstall -y faiss-cpu && pip install 'neural-slots[faiss-cpu]'"


def test_two_faiss(tmp_path, no_driver):
    install(tmp_path / "one", "faiss-cpu")
    install(tmp_path / "two", "faiss-gpu")
    finding = doctor.check_faiss([str(tmp_path / "one"), str(tmp_path / "two")])
    assert not finding.ok
    assert finding.message == "faiss-cpu and faiss-gpu overwrite each other"
    assert finding.fix == "pip uninstall -y faiss-cpu faiss-gpu && pip install 'neural-slots[faiss-cpu]'"


# torch, numba, Python


def test_a_torchvision_of_another_torch(tmp_path, monkeypatch):
    broken(tmp_path, "torchvision", "RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    torch, cuda = doctor.check_torch()
    assert not torch.ok
    assert not cuda.ok
    assert torch.message == "RuntimeError: operator torchvision::nms does not exist"
    assert torch.fix == cuda.fix == "pip install --force-reinstall torch torchvision"
    assert cuda.message == "unknown, since torch does not work"


@pytest.mark.usefixtures("asked_once")
def test_a_driver_that_torch_cannot_use(no_driver, monkeypatch):
    if device_count():  # else torch says of this machine what it says with none to be seen
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    _torch, cuda = doctor.check_torch()
    assert cuda == Finding("cuda", True, "no NVIDIA device; everything runs on the CPU")
    executable(no_driver, "#!/bin/sh\nexit 0\n")
    torch, cuda = doctor.check_torch()
    assert torch.ok
    assert not cuda.ok
    assert cuda.message == "an NVIDIA driver answers, but torch cannot use it"
    assert cuda.fix == "update the NVIDIA driver, or install a torch built for it"


@pytest.mark.parametrize(
    ("code", "message"), [("SystemExit(7)", "the process died with status 7"), ("ImportError('no llvm')", "no llvm")]
)
def test_a_numba_that_does_not_work(tmp_path, monkeypatch, code, message):
    broken(tmp_path, "numba", code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    finding = doctor.check_numba()
    assert not finding.ok
    assert finding.message.endswith(message)
    assert finding.fix == "pip install --force-reinstall numba llvmlite"


def test_something_that_hangs(tmp_path, monkeypatch):
    (tmp_path / "numba.py").write_text("import time; time.sleep(60)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(doctor, "_PATIENCE_S", 0.5)
    assert doctor.check_numba().message == "no answer after 0.5 s"


def test_python():
    assert doctor.check_python((3, 11)).ok
    assert doctor.check_python((4, 0)).ok
    old = doctor.check_python((3, 10))
    assert old == Finding("python", False, "3.10 is too old", "install Python 3.11 or newer")


# Folder and disk


def test_a_folder_that_can_be_made(tmp_path):
    finding = doctor.check_folder(tmp_path / "deep" / "data")
    assert finding == Finding("folder", True, f"{tmp_path / 'deep' / 'data'} can be written to")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").write_text("in the way")
    finding = doctor.check_folder(tmp_path / "file" / "data")
    assert not finding.ok
    assert finding.message == f"{tmp_path / 'file'} cannot be written to: Not a directory"
    assert finding.fix == "set SLOTS_DATA_DIR to a folder that you may write to"


def test_a_full_disk(tmp_path, monkeypatch):
    assert doctor.check_disk(tmp_path / "data").ok
    monkeypatch.setattr(doctor, "_WANTED_FREE_GIB", 2.0**40)
    finding = doctor.check_disk(tmp_path / "data")
    assert not finding.ok
    assert finding.message.endswith(f" GiB free for {tmp_path / 'data'}")
    assert finding.fix.startswith("make room: data and models want ")


# All of it


@pytest.mark.usefixtures("asked_once")
def test_the_command_finds_this_installation_in_order_or_says_what_to_do(capsys):
    with pytest.raises(SystemExit) as end:
        main(["doctor", "--json"])
    document = json.loads(capsys.readouterr().out)
    assert end.value.code == (0 if document["ok"] else 1)
    assert {"python", "packages", "torch", "faiss"} <= {finding["name"] for finding in document["findings"]}


@pytest.mark.usefixtures("asked_once")
def test_diagnose_this_installation(tmp_path):
    findings = doctor.diagnose(data_dir=tmp_path)
    assert [f.name for f in findings] == ["python", "packages", "torch", "cuda", "faiss", "numba", "folder", "disk"]
    wrong = [f for f in findings if not f.ok and f.name not in {"packages", "cuda", "disk"}]
    assert wrong == []
    assert all(finding.fix for finding in findings if not finding.ok)
    assert all(finding.message for finding in findings)


def test_the_doctor_loads_nothing_heavy():
    code = "import sys, protocols.app.doctor; print({'torch', 'numpy', 'numba', 'faiss'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
