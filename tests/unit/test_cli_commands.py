# SPDX-License-Identifier: Apache-2.0
"""Whole command lines: what goes to which stream, and the exit status."""

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import click
import msgspec
import pytest
from click.testing import CliRunner

from atoll import __version__
from atoll.base.errors import UserError
from atoll.base.member import RelayWill
from atoll.cli.api import socket_path
from atoll.cli.app import atoll, run
from atoll.cli.forwards import parse_local, parse_target, proxy_url
from atoll.cli.node import advertised_of, metrics_of
from atoll.cli.settings import Setting
from atoll.node.state import Settings
from atoll.node.views import ForwardView, MetricsView, PeerView, PingView, RelayView, StatusView, WhyView

Captured = pytest.CaptureFixture[str]


PEER = PeerView(
    name="ash-1",
    node="00" * 10,
    address="fd00::1",
    state="ok",
    via=None,
    rtt_ms=88.4,
    deviation_ms=1.2,
    loss=0.0,
    why="",
    last_heard_s=0.2,
    session=True,
    relay="yes",
    endpoint=None,
)
STATUS = StatusView(
    version="0.1.0",
    name="fra-1",
    node="11" * 10,
    address="fd00::2",
    group="blue-heron",
    roster_version="3",
    uptime_s=10.0,
    listen="0.0.0.0:41641",
    peers=(PEER,),
    relaying=RelayView(will="yes", bytes_s=0, budget_bytes_s=2_500_000, pairs=0, forwarded_bytes=0),
    degraded=False,
)


@contextmanager
def node(state: Path, *answers: bytes) -> Generator[list[dict[str, object]]]:
    """Serve one connection: read a request, send the answers, hang up. Yields the requests seen."""
    requests: list[dict[str, object]] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(socket_path(state)))
        listener.listen(1)
        listener.settimeout(10)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                requests.append(json.loads(connection.makefile().readline()))
                connection.sendall(b"".join(answers))

        thread = threading.Thread(target=serve)
        thread.start()
        yield requests
        thread.join(timeout=10)


def ok(view: object) -> bytes:
    return b'{"ok":' + msgspec.json.encode(view) + b"}\n"


def test_status_prints_the_table_and_warnings_apart(tmp_path: Path, capsys: Captured) -> None:
    view = msgspec.structs.replace(STATUS, warnings=("the clock was stepped back",))
    with node(tmp_path, ok(view)) as requests:
        assert run(["status", "--state", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("PEER   STATE")
    assert err == "warning: the clock was stepped back\n"
    assert requests == [{"method": "status", "params": {}}]
    assert "\x1b" not in out  # No colours in a pipe.


@pytest.mark.parametrize(
    ("degraded", "arguments", "code"), [(True, ["--check"], 4), (False, ["--check"], 0), (True, [], 0)]
)
def test_check_turns_degraded_into_an_exit_status(
    tmp_path: Path, degraded: bool, arguments: list[str], code: int
) -> None:
    with node(tmp_path, ok(msgspec.structs.replace(STATUS, degraded=degraded))):
        assert run(["status", "--state", str(tmp_path), *arguments]) == code


def test_json_is_the_view_as_received_with_fields_that_we_do_not_know(tmp_path: Path, capsys: Captured) -> None:
    raw = msgspec.json.encode(STATUS)[:-1] + b',"added_later":1}'
    with node(tmp_path, b'{"ok":' + raw + b"}\n"):
        assert run(["status", "--json", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.encode() == raw + b"\n"


def test_plain_goes_through(tmp_path: Path, capsys: Captured) -> None:
    with node(tmp_path, ok(STATUS)):
        assert run(["status", "--plain", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("ash-1\tok\tdirect\t88.4\t")


def test_without_a_node_status_exits_3_with_the_anatomy_on_standard_error(tmp_path: Path, capsys: Captured) -> None:
    assert run(["status", "--state", str(tmp_path)]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error A401: no node is running here\n  where   ")
    assert err.endswith(f"  fix     atoll up --state {tmp_path}\n  more    atoll help A401\n")


@pytest.mark.parametrize(
    ("arguments", "params"),
    [
        (["sin-1"], {"target": "sin-1", "tag": "latency"}),
        (["fra-1", "sin-1", "--tag", "loss"], {"source": "fra-1", "target": "sin-1", "tag": "loss"}),
    ],
)
def test_why_takes_one_name_or_two(
    tmp_path: Path, capsys: Captured, arguments: list[str], params: dict[str, str]
) -> None:
    view = WhyView(
        source="fra-1",
        target="sin-1",
        tag="latency",
        path=("fra-1", "sin-1"),
        since_s=3.0,
        because="direct is best",
        candidates=(),
        history=(),
        next="nothing",
    )
    with node(tmp_path, ok(view)) as requests:
        assert run(["why", *arguments, "--state", str(tmp_path)]) == 0
    assert requests[0]["params"] == params
    assert capsys.readouterr().out.startswith("Path      fra-1 -> sin-1   (chosen 3 s ago)\n")


@pytest.mark.parametrize(("rtt_ms", "code"), [(12.0, 0), (None, 5)])
def test_ping_exits_5_when_nothing_answers(tmp_path: Path, capsys: Captured, rtt_ms: float | None, code: int) -> None:
    view = PingView(name="sin-1", sequence=1, via=None, rtt_ms=rtt_ms)
    with node(tmp_path, ok(view), ok(view), b'{"end":true}\n') as requests:
        assert run(["ping", "sin-1", "-c", "2", "--state", str(tmp_path)]) == code
    assert requests[0]["params"] == {"node": "sin-1", "count": 2, "tag": "latency"}
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_invite_prints_only_the_line_on_standard_output(tmp_path: Path, capsys: Captured) -> None:
    with node(tmp_path, b'{"ok":{"invite":"atoll1-X","valid_s":600}}\n'):
        assert run(["invite", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr() == ("atoll up atoll1-X\n", "valid 10 min, 1 use; paste it on the next machine\n")


@pytest.mark.parametrize(
    ("code", "status_code"), [("A210", 1), ("A406", 5), ("A405", 6), ("A208", 7), ("A999", 1), ("A212", 2)]
)
def test_the_nodes_error_decides_the_exit_status(tmp_path: Path, capsys: Captured, code: str, status_code: int) -> None:
    line = json.dumps({"error": {"code": code, "sentence": "no", "where": "here", "fix": "that"}}).encode() + b"\n"
    with node(tmp_path, line):
        assert run(["remove", "nobody", "--state", str(tmp_path)]) == status_code
    assert capsys.readouterr().err == f"error {code}: no\n  where   here\n  fix     that\n  more    atoll help {code}\n"


def test_forward_adds_lists_and_ends(tmp_path: Path, capsys: Captured) -> None:
    made = ForwardView(id=1, protocol="udp", local="127.0.0.1:5353", node="sin-1", port=53, tag="loss", connections=0)
    with node(tmp_path, ok(made)) as requests:
        assert run(["forward", "udp", "5353", "sin-1:53", "--tag", "loss", "--state", str(tmp_path)]) == 0
    assert requests == [
        {
            "method": "forward.add",
            "params": {"protocol": "udp", "local": "127.0.0.1:5353", "node": "sin-1", "port": 53, "tag": "loss"},
        }
    ]
    assert capsys.readouterr().out == "forward 1: udp 127.0.0.1:5353 -> sin-1:53 (by loss)\n"
    (tmp_path / "control.sock").unlink()
    with node(tmp_path, ok([made, made])):
        assert run(["forward", "list", "--json", "--state", str(tmp_path)]) == 0
    assert [json.loads(line)["schema"] for line in capsys.readouterr().out.splitlines()] == ["atoll.forward/1"] * 2
    (tmp_path / "control.sock").unlink()
    with node(tmp_path, b'{"ok":null}\n') as requests:
        assert run(["forward", "rm", "1", "--state", str(tmp_path)]) == 0
    assert requests == [{"method": "forward.remove", "params": {"id": 1}}]


def test_socks_prints_a_line_to_paste_and_tells_the_rest_apart(tmp_path: Path, capsys: Captured) -> None:
    made = ForwardView(id=4, protocol="socks", local="127.0.0.1:1080", node="", port=0, tag="loss", connections=0)
    with node(tmp_path, ok(made)) as requests:
        assert run(["socks", "--tag", "loss", "--state", str(tmp_path)]) == 0
    assert requests == [
        {
            "method": "forward.add",
            "params": {"protocol": "socks", "local": "127.0.0.1:1080", "tag": "loss", "anyone": False},
        }
    ]
    out, err = capsys.readouterr()
    assert out == "export ALL_PROXY=socks5h://127.0.0.1:1080\n"
    assert "127.0.0.1:1080" in err
    assert "atoll forward rm 4" in err
    (tmp_path / "control.sock").unlink()
    with node(tmp_path, ok(made)) as requests:
        assert run(["socks", "--listen", "[::]:0", "--anyone", "--json", "--state", str(tmp_path)]) == 0
    assert requests[0]["params"] == {"protocol": "socks", "local": "[::]:0", "tag": "latency", "anyone": True}
    assert json.loads(capsys.readouterr().out)["protocol"] == "socks"


@pytest.mark.parametrize(
    ("local", "url"),
    [
        ("127.0.0.1:1080", "socks5h://127.0.0.1:1080"),
        ("[::1]:9", "socks5h://[::1]:9"),
        ("0.0.0.0:1080", "socks5h://127.0.0.1:1080"),
        ("[::]:1080", "socks5h://[::1]:1080"),
    ],
)
def test_the_line_to_paste_leads_to_an_address_that_can_be_called(local: str, url: str) -> None:
    assert proxy_url(local) == url


@pytest.mark.parametrize(
    ("text", "parsed"),
    [("8080", "127.0.0.1:8080"), ("0.0.0.0:80", "0.0.0.0:80"), ("[::1]:0", "[::1]:0"), (":7", "127.0.0.1:7")],
)
def test_a_local_address_is_a_port_or_host_and_port(text: str, parsed: str) -> None:
    assert parse_local(text) == parsed


@pytest.mark.parametrize("text", ["", "x", "host:", "127.0.0.1:70000", "1:2x", "a:-1"])
def test_anything_else_is_no_local_address(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parse_local(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "sin-1", "sin-1:", ":80", "sin-1:0", "sin-1:65536", "SIN:80", "a:b:80", "[]:80", "[x]:80"),
        *("fd00::1:80", ",a:80", "a,:80", "a,,b:80", "a;b:80", "[a,b]:80", "a:80,b:80"),
    ],
)
def test_a_target_is_a_node_and_a_port(text: str) -> None:
    assert parse_target("sin-1:443") == ("sin-1", 443)
    assert parse_target("sin-1.lab.atoll:443") == ("sin-1.lab.atoll", 443)
    assert parse_target("[fd00:1::2]:443") == ("fd00:1::2", 443)
    assert parse_target("a,[fd00:1::2],b.atoll:443") == ("a,fd00:1::2,b.atoll", 443)
    with pytest.raises(click.BadParameter):
        parse_target(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["status", "--bogus"],
        ["nonsense"],
        ["remove"],
        ["ping", "x", "-c", "0"],
        ["forward", "tcp", "80", "nowhere"],
        ["up", "--relay", "maybe"],
        ["why", "a", "--tag", "speed"],
        ["help", "A999"],
        ["help", "nonsense"],
        ["forward"],
        ["config"],
        ["status", "--plain", "--json"],
        ["status", "--check", "--watch"],
        ["forward", "list", "--plain", "--json"],
        ["ping", "a\udcff"],
        ["up", "--state", "/x\0y"],
        ["logs", "--state", "/x\0y"],
        ["up", "--listen", ""],
        ["up", "--listen", "127.0.0.1:7,"],
        ["up", "--advertise", "none,192.0.2.1:7"],
        ["up", "--metrics", "0"],
        ["up", "--metrics", "here"],
    ],
)
def test_a_wrong_command_line_exits_2_and_names_the_help(arguments: list[str], capsys: Captured) -> None:
    assert run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error A501: ")
    assert err.endswith("  more    atoll help A501\n")
    assert "\n  fix     " in err
    assert len(err.splitlines()) <= 4, "a sentence, not a page"


@pytest.mark.parametrize(
    ("given", "advertised"),
    [
        (None, None),
        ("none", ()),
        ("", ()),
        ("192.0.2.1:7, [::1]:8", ("192.0.2.1:7", "[::1]:8")),
    ],
)
def test_what_is_advertised_can_be_kept_set_and_taken_back(
    given: str | None, advertised: tuple[str, ...] | None
) -> None:
    assert advertised_of(Setting("advertise", given, "flag --advertise")) == advertised


@pytest.mark.parametrize(
    ("given", "served"),
    [
        (None, None),
        ("none", ""),
        ("9747", "127.0.0.1:9747"),
        (":9747", "127.0.0.1:9747"),
        ("0.0.0.0:1", "0.0.0.0:1"),
        ("[::1]:65535", "[::1]:65535"),
        ("fra.example.org:09747", "fra.example.org:9747"),
    ],
)
def test_metrics_are_served_on_loopback_unless_a_host_is_named(given: str | None, served: str | None) -> None:
    assert metrics_of(Setting("metrics", given, "flag --metrics")) == served


@pytest.mark.parametrize("given", ["", "0", "65536", "9747x", "fra", "fra:", "fra:-1", "\u0669", "1" * 5000, "1\n"])
def test_anything_else_is_no_place_for_metrics(given: str) -> None:
    with pytest.raises(UserError, match="A501"):
        metrics_of(Setting("metrics", given, "flag --metrics"))


def test_metrics_prints_the_text_as_it_came(tmp_path: Path, capsys: Captured) -> None:
    told = MetricsView(text='# HELP a "b"\na{c="\\n"} 1.0\n')
    with node(tmp_path, ok(told)) as requests:
        assert run(["metrics", "--state", str(tmp_path)]) == 0
    assert requests == [{"method": "metrics", "params": {}}]
    assert capsys.readouterr() == (told.text, "")
    (tmp_path / "control.sock").unlink()
    with node(tmp_path, ok(told)):
        assert run(["metrics", "--json", "--state", str(tmp_path)]) == 0
    assert json.loads(capsys.readouterr().out) == {"schema": "atoll.metrics/1", "text": told.text}


def test_alone_it_lists_the_commands(capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert run([]) == 0
    listed = capsys.readouterr().out
    assert "\n  why " in listed
    assert "..." not in listed.partition("Commands:")[2], "nothing is cut off on a terminal of 80 columns"


@pytest.mark.parametrize(("variable", "value"), [("ATOLL_RELAY", "maybe"), ("ATOLL_RELAY_BUDGET", "plenty")])
def test_a_wrong_value_in_the_environment_names_its_origin(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    assert run(["up", "--state", str(tmp_path / "none")]) == 2
    assert f"environment {variable}" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_help_explains_a_code_offline(capsys: Captured) -> None:
    assert run(["help", "a203"]) == 0
    assert capsys.readouterr().out.startswith("A203: this invitation has expired\n")


def test_help_explains_a_command(capsys: Captured) -> None:
    assert run(["help", "why"]) == 0
    assert capsys.readouterr().out.startswith("Usage: atoll why [OPTIONS] A [B[:PORT]]\n")


def test_help_without_a_code_lists_the_commands(capsys: Captured) -> None:
    assert run(["help"]) == 0
    listed = capsys.readouterr().out
    for command in atoll.commands:
        assert f"\n  {command} " in listed


def test_config_show_prints_origins(tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "atoll.toml"
    file.write_text('relay = "metered"\n')
    monkeypatch.setenv("ATOLL_NAME", "fra-1")
    assert run(["config", "show", "--origin", "--config", str(file), "--state", "/s"]) == 0
    assert capsys.readouterr().out.splitlines()[:6] == [
        "state\t/s\tflag --state",
        "name\tfra-1\tenvironment ATOLL_NAME",
        "listen\t-\tdefault",
        "tcp\t-\tdefault",
        "advertise\t-\tdefault",
        f"relay\tmetered\tfile {file}",
    ]


def test_config_show_knows_what_an_earlier_up_was_told(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_RELAY", "never")
    kept = Settings(
        name="fra-1",
        group_name="g",
        listen="0.0.0.0:7,tcp/0.0.0.0:443",
        relay=RelayWill.METERED,
        relay_bytes_s=1_250_000,
    )
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode(kept))
    assert run(["config", "show", "--json", "--state", str(tmp_path)]) == 0
    shown = msgspec.json.decode(capsys.readouterr().out)
    assert shown["schema"] == "atoll.settings/1"
    told = "kept from an earlier up"
    assert {setting["key"]: (setting["value"], setting["origin"]) for setting in shown["settings"]} == {
        "state": (str(tmp_path), "flag --state"),
        "name": ("fra-1", told),
        "listen": ("0.0.0.0:7,tcp/0.0.0.0:443", told),
        "tcp": ("443", told),
        "advertise": (None, "default"),
        "relay": ("never", "environment ATOLL_RELAY"),
        "relay-budget": ("10", told),
        "group-name": ("g", told),
        "tun": ("no", told),
        "metrics": (None, "default"),
    }
    (tmp_path / "settings.json").write_bytes(msgspec.json.encode(msgspec.structs.replace(kept, metrics="::1:9747")))
    assert run(["config", "show", "--state", str(tmp_path)]) == 0
    assert capsys.readouterr().out.endswith("metrics\t::1:9747\n")


def test_logs_prints_the_last_lines(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    (tmp_path / "node.log").write_bytes(b"".join(b"line %d\n" % number for number in range(100)))
    assert run(["logs", "-n", "2", "--state", str(tmp_path)]) == 0
    assert capsysbinary.readouterr().out == b"line 98\nline 99\n"
    assert run(["logs", "-n", "1", "--json", "--state", str(tmp_path)]) == 0
    assert capsysbinary.readouterr().out == b'{"schema":"atoll.log/1","line":"line 99"}\n'
    assert run(["logs", "-n", "0", "--state", str(tmp_path)]) == 0
    assert capsysbinary.readouterr().out == b""
    assert run(["logs", "--state", str(tmp_path / "none")]) == 3


def test_a_journal_that_is_not_there_is_a_coded_error(tmp_path: Path, capsys: Captured) -> None:
    assert run(["replay", str(tmp_path / "none.journal")]) == 1
    assert capsys.readouterr().err.startswith("error A304: ")


@pytest.mark.parametrize(
    ("raised", "code", "begins"),
    [
        (KeyboardInterrupt(), 130, ""),
        (RuntimeError("boom"), 1, "error A500: unexpected RuntimeError: boom\n"),
        (PermissionError(13, "Permission denied", "/x"), 1, "error A499: permission denied\n  where   /x\n"),
        (BrokenPipeError(), 1, ""),
    ],
)
def test_whatever_is_raised_becomes_an_exit_status_and_no_traceback(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch, raised: BaseException, code: int, begins: str
) -> None:
    def fail() -> None:
        raise raised

    monkeypatch.setitem(atoll.commands, "down", click.Command("down", callback=fail))
    stdout = sys.stdout
    assert run(["down"]) == code
    monkeypatch.setattr(sys, "stdout", stdout)
    err = capsys.readouterr().err
    assert err.startswith(begins)
    assert "Traceback" not in err


def test_debug_lets_the_traceback_through(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise RuntimeError("boom")

    monkeypatch.setitem(atoll.commands, "down", click.Command("down", callback=fail))
    with pytest.raises(RuntimeError, match="boom"):
        run(["--debug", "down"])


def test_version_by_click_and_by_the_short_cut_agree() -> None:
    assert CliRunner().invoke(atoll, ["--version"]).output == f"atoll {__version__}\n"
    script = "import sys; sys.argv = ['atoll', '--version']; from atoll.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout == f"atoll {__version__}\n"


VERSION = """
import sys
sys.argv = ["atoll", "--version"]
from atoll.cli import main
try:
    main()
except SystemExit:
    pass
"""
STATUS_OF_NONE = """
import sys
from atoll.cli.app import run
run(["status", "--state", "/nonexistent"])
"""


@pytest.mark.parametrize(
    ("script", "forbidden"),
    [
        (VERSION, ["click", "msgspec", "asyncio"]),
        (STATUS_OF_NONE, ["rich", "asyncio", "aioquic", "cryptography", "tomllib", "difflib", "statistics"]),
        (STATUS_OF_NONE.replace("status", "metrics"), ["rich", "asyncio", "prometheus_client"]),
    ],
)
def test_the_quick_commands_import_nothing_heavy(script: str, forbidden: list[str]) -> None:
    script += f"print([name for name in {forbidden!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("target", ["sin:", "sin:0", "sin:65536", "sin:http", "sin:80:90", "sin:-1", "sin:٣"])
def test_what_is_no_port_to_ask_about_is_a_usage_error(target: str, capsys: Captured) -> None:
    assert run(["why", target]) == 2
    assert "is not B:PORT" in capsys.readouterr().err
