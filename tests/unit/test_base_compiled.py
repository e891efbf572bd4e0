# SPDX-License-Identifier: Apache-2.0
"""The compiled loops are used only in the form that is known."""

import subprocess
import sys
from pathlib import Path

import pytest

from atoll.base.compiled import FORM

ASK = "from atoll.base.compiled import is_compiled; print(is_compiled())"


@pytest.mark.parametrize(
    ("module", "used"),
    [(f"FORM = {FORM}", True), (f"FORM = {FORM + 1}", False), ("", False), ("raise ImportError('no OpenSSL')", False)],
)
def test_only_the_known_form_is_used(tmp_path: Path, module: str, used: bool) -> None:
    (tmp_path / "atoll_fast.py").write_text(module, encoding="ascii")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {ASK}"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == str(used)
