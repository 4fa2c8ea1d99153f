"""Small folders of installed distributions, laid as an installer lays them."""

import base64
import hashlib


def lay(folder, name, version="1.0", headers=(), files=None):
    """Lay a distribution there as an installer does: its files, METADATA, and RECORD with the digests."""
    info = f"{name}-{version}.dist-info"
    about = "\n".join([f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}", *headers, ""])
    record = []
    for path, text in {**(files or {}), f"{info}/METADATA": about}.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        record.append(f"{path},sha256={digest},{len(text)}")
    (folder / info / "RECORD").write_text("\n".join([*record, f"{info}/RECORD,,", ""]))


def small_site(folder):
    """Our library with a need, an extra and a test; what they need in turn."""
    needs = ["Requires-Dist: tensors>=2", 'Requires-Dist: Web_Server; extra == "serve"']
    lay(folder, "neural-slots", headers=[*needs, 'Requires-Dist: checker; extra == "test"', "License-Expression: MIT"])
    lay(folder, "tensors", "2.1", ["Requires-Dist: maths[fast]", "License-Expression: BSD-3-Clause"])
    fast = 'Requires-Dist: quick; extra == "fast"'
    lay(folder, "maths", headers=[fast, "License: BSD"], files={"maths.py": "two = 1 + 1\n"})
    lay(folder, "quick", headers=["Classifier: License :: OSI Approved :: MIT License"])
    lay(folder, "web.server", headers=["License-Expression: Apache-2.0"])
    lay(folder, "checker", headers=["License: GNU General Public License (GPL)"])
    return folder
