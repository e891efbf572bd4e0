# SPDX-License-Identifier: Apache-2.0
"""ssh, rsync and psql as Debian ships them, over a direct path that is cut while they work.

::

    n0 ----- n1    cut by nftables while the program runs: packets vanish, and nobody is told
      \\     /
        n2
"""

import hashlib
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.netns.lan import Host, cannot, hosts
from tests.process.node_world import until

pytestmark = pytest.mark.netns

MIB = 1 << 20
FILE_BYTES = 24 * MIB
LINES = 120
COUNT = f"i=0; while [ $i -lt {LINES} ]; do echo $i; i=$((i+1)); sleep 0.05; done"

SSHD = """
HostKey {base}/host
AuthorizedKeysFile {base}/user.pub
ListenAddress [{address}]:22
PidFile none
PermitRootLogin yes
StrictModes no
UsePAM no
"""


def needs(*tools: str) -> None:
    for tool in tools:
        if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None:
            cannot(f"needs {tool}")


@pytest.fixture
def three() -> Generator[tuple[Host, Host]]:
    with hosts(3) as (one, two, third):
        invite = one.up("--tun").invite
        assert invite is not None
        two.up("--tun", invite)
        again = one.atoll("invite").stdout.split()[-1]
        third.up(again)
        for host in (one, two):
            until(lambda at=host: [(p.state, p.via) for p in at.status().peers] == [("ok", None)] * 2, "all linked")  # type: ignore[misc]  # a bound
        yield one, two


@contextmanager
def cut(one: Host, two: Host) -> Generator[None]:
    """Let packets between the two vanish."""
    one.inside("nft", "add", "table", "inet", "cut")
    for hook, field in (("input", "saddr"), ("output", "daddr")):
        chain = f"{{ type filter hook {hook} priority 0; policy accept; ip {field} {two.ip} drop; }}"
        one.inside("nft", f"add chain inet cut {hook} {chain}")
    yield
    one.inside("nft", "delete", "table", "inet", "cut")


def via(host: Host, name: str) -> str | None:
    return next(peer.via for peer in host.status().peers if peer.name == name)


@pytest.fixture
def ssh(three: tuple[Host, Host], tmp_path: Path) -> Generator[list[str]]:
    """Serve ssh on the second machine; give the command that enters it from the first."""
    needs("sshd", "ssh", "ssh-keygen", "nft")
    _, two = three
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / name)], check=True)
    (tmp_path / "sshd").write_text(SSHD.format(base=tmp_path, address=two.address))
    Path("/run/sshd").mkdir(exist_ok=True)
    with subprocess.Popen(two.command("/usr/sbin/sshd", "-D", "-e", "-f", str(tmp_path / "sshd"))) as server:
        try:
            until(lambda: ":22" in two.inside("ss", "-ltn"), "sshd")
            options = ("BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR")
            yield ["ssh", "-F", "none", "-i", str(tmp_path / "user"), *(f"-o{option}" for option in options)]
        finally:
            server.terminate()


def test_an_ssh_session_outlives_the_path_it_began_on(three: tuple[Host, Host], ssh: list[str]) -> None:
    one, two = three
    with subprocess.Popen(
        one.command(*ssh, f"root@{two.address}", COUNT), stdout=subprocess.PIPE, text=True
    ) as session:
        assert session.stdout is not None
        assert [session.stdout.readline() for _ in range(20)] == [f"{number}\n" for number in range(20)]
        with cut(one, two):
            rest = session.stdout.readlines()
            assert rest == [f"{number}\n" for number in range(20, LINES)]
            assert via(one, "n1") == "n2"
    assert session.returncode == 0


def test_an_rsync_finishes_on_another_path(three: tuple[Host, Host], ssh: list[str], tmp_path: Path) -> None:
    needs("rsync")
    one, two = three
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(os.urandom(FILE_BYTES))
    target.mkdir()
    # Slow enough that it is under way when the path goes; 6 MB/s.
    arguments = ["rsync", "--bwlimit=6000", "-e", " ".join(ssh), str(source), f"root@[{two.address}]:{target}/"]

    def arrived() -> int:
        return sum(file.stat().st_size for file in target.iterdir())

    with subprocess.Popen(one.command(*arguments)) as transfer:
        until(lambda: arrived() > 2 * MIB, "the transfer under way")
        with cut(one, two):
            assert arrived() < FILE_BYTES
            until(lambda: via(one, "n1") == "n2", "another path")
            assert transfer.wait(timeout=60) == 0
    copied = (target / "source").read_bytes()
    assert hashlib.sha256(copied).digest() == hashlib.sha256(source.read_bytes()).digest()


@pytest.fixture
def database(three: tuple[Host, Host]) -> Generator[None]:
    """Run a PostgreSQL server of its own on the second machine."""
    needs("psql", "nft", "setpriv")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        cannot("needs postgresql")
    binaries = found[-1].parent
    _, two = three
    user = pwd.getpwnam("postgres")
    as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
    with tempfile.TemporaryDirectory(prefix="atoll-pg-") as base:
        os.chown(base, user.pw_uid, user.pw_gid)
        data = f"{base}/data"
        made = [*as_user, str(binaries / "initdb"), "-D", data, "-A", "trust", "-U", "postgres", "--no-sync"]
        subprocess.run(made, check=True, capture_output=True, cwd="/", env={"LC_ALL": "C", "PATH": os.environ["PATH"]})
        with (Path(data) / "pg_hba.conf").open("a") as rules:
            rules.write("host all all ::/0 trust\n")
        options = ("-D", data, "-h", two.address, "-k", base, "-c", "fsync=off")
        with subprocess.Popen(two.command(*as_user, str(binaries / "postgres"), *options), cwd="/") as server:
            try:
                until(lambda: ":5432" in two.inside("ss", "-ltn"), "the database")
                yield
            finally:
                server.terminate()


def test_a_database_connection_stays_the_same_one(three: tuple[Host, Host], database: None) -> None:
    del database
    one, two = three
    arguments = ["psql", "-X", "-A", "-t", "-U", "postgres", "-h", two.address, "postgres"]
    with subprocess.Popen(
        one.command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None

        def ask(sql: str) -> str:
            assert client.stdin is not None
            assert client.stdout is not None
            client.stdin.write(f"{sql};\n")
            client.stdin.flush()
            return client.stdout.readline().strip()

        backend = ask("select pg_backend_pid()")
        assert ask("begin") == "BEGIN"
        with cut(one, two):
            assert ask("select 6 * 7") == "42"
            until(lambda: via(one, "n1") == "n2", "another path")
            assert ask("select md5(string_agg(n::text, ',')) from generate_series(1, 100000) n") == expected_digest()
            assert ask("commit") == "COMMIT"
            assert ask("select pg_backend_pid()") == backend
        client.stdin.close()


def expected_digest() -> str:
    return hashlib.md5(",".join(str(number) for number in range(1, 100_001)).encode()).hexdigest()
