# SPDX-License-Identifier: Apache-2.0
"""Systems that forbid what ``atoll exec`` needs: the error names the setting, and what does without."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.netns.lan import cannot

pytestmark = pytest.mark.netns

NOBODY = 65_534

ASK = """
from atoll.base.errors import UserError
from atoll.base.ids import GroupId, NodeId
from atoll.node.private import Private
try:
    Private(GroupId(bytes(32)), NodeId(bytes(10)))
except UserError as error:
    print(error.code, error.where, error.fix, sep="|")
else:
    print("made|it|well")
"""


def asked(*command: str) -> list[str]:
    if os.geteuid() != 0:
        cannot("needs root")
    done = subprocess.run(
        [*command, sys.executable, "-c", ASK], capture_output=True, text=True, timeout=60, check=False, cwd="/"
    )
    if done.returncode:
        cannot(f"{' '.join(command)}: {done.stderr}")
    return done.stdout.strip().split("|")


def test_where_users_may_make_no_namespaces_the_setting_is_named() -> None:
    forbid = 'echo 0 > /proc/sys/user/max_user_namespaces; exec "$@"'  # In a namespace of its own, and those below it.
    code, where, fix = asked("unshare", "--user", "--map-root-user", "sh", "-c", forbid, "sh")
    assert (code, where) == ("A112", "user namespace: ENOSPC")
    assert "user.max_user_namespaces" in fix
    assert "atoll forward" in fix


def test_where_the_tun_device_is_closed_to_users_it_is_named(tmp_path: Path) -> None:
    closed = tmp_path / "tun"
    closed.touch(0o600)
    os.chown(closed, NOBODY, NOBODY)  # Root's own file would be open to root; in the new namespace it is a user.
    hide = 'mount --bind "$0" /dev/net/tun && exec "$@"'
    code, where, fix = asked("unshare", "--mount", "sh", "-c", hide, str(closed))
    assert (code, where) == ("A112", "tun: EACCES")
    assert "/dev/net/tun" in fix
    assert "atoll socks" in fix
