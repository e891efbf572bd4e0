# SPDX-License-Identifier: Apache-2.0
"""The client of the local API against a tiny real server on a unix socket."""

import json
import socket
import threading
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from atoll.base.errors import UserError
from atoll.cli import api
from atoll.cli.api import Api, socket_path, view
from atoll.host.places import default_state
from atoll.node.views import InviteView


@contextmanager
def node(state: Path, *answers: bytes, chunk: int = 65_536) -> Generator[list[dict[str, object]]]:
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
                data = b"".join(answers)
                try:
                    for start in range(0, len(data), chunk):
                        connection.sendall(data[start : start + chunk])
                except BrokenPipeError:
                    return  # The client has heard enough.

        thread = threading.Thread(target=serve)
        thread.start()
        yield requests
        thread.join(timeout=10)


def refusal(state: Path, *answers: bytes) -> UserError:
    with node(state, *answers), pytest.raises(UserError) as caught:
        Api(state).call("status")
    return caught.value


def test_a_call_sends_method_and_params_and_returns_the_answer_as_it_came(tmp_path: Path) -> None:
    with node(tmp_path, b'{"ok":{"invite":"atoll1-X","valid_s":600,"new":1}}\n', chunk=3) as requests:
        raw = Api(tmp_path).call("invite", {"a": 1})
    assert raw == b'{"invite":"atoll1-X","valid_s":600,"new":1}'
    assert requests == [{"method": "invite", "params": {"a": 1}}]
    assert view(raw, InviteView) == InviteView(invite="atoll1-X", valid_s=600)


def test_a_stream_ends_where_the_node_says(tmp_path: Path) -> None:
    with node(tmp_path, b'{"ok":1}\n{"ok":2}\n', b'{"end":true}\n{"ok":3}\n'):
        assert list(Api(tmp_path).stream("ping")) == [b"1", b"2"]


def test_the_nodes_error_keeps_code_sentence_evidence_and_remedy(tmp_path: Path) -> None:
    problem = refusal(tmp_path, b'{"error":{"code":"A210","sentence":"no such node","where":"w","fix":"f"}}\n')
    assert (problem.code, problem.sentence, problem.where, problem.fix) == ("A210", "no such node", "w", "f")


def test_without_a_node_the_remedy_is_to_start_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Api(tmp_path).call("status")
    assert (caught.value.code, caught.value.fix) == ("A401", f"atoll up --state {tmp_path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(socket_path(tmp_path)))  # A leftover that nobody listens on.
    with pytest.raises(UserError) as caught:
        Api(tmp_path).call("status")
    assert caught.value.code == "A401"


def test_the_remedy_names_no_directory_where_none_is_needed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    with pytest.raises(UserError) as caught:
        Api(default_state()).call("status")
    assert caught.value.fix == "atoll up"


def test_a_node_that_ended_by_itself_is_asked_for_its_last_word(tmp_path: Path) -> None:
    (tmp_path / "ended.json").write_bytes(b'{"code":"A207","sentence":"twins","fix":"stop one"}')
    with pytest.raises(UserError) as caught:
        Api(tmp_path).call("status")
    assert (caught.value.code, caught.value.fix) == ("A401", "stop one")
    assert caught.value.sentence.endswith("it ended with A207, twins")
    (tmp_path / "ended.json").write_bytes(b"\xff")
    with pytest.raises(UserError) as caught:
        Api(tmp_path).call("status")
    assert caught.value.sentence == "no node is running here"


def test_a_node_that_does_not_answer_is_a_time_out(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(socket_path(tmp_path)))
        silent.listen(1)
        with pytest.raises(UserError) as caught:
            Api(tmp_path, timeout_s=0.05).call("status")
    assert caught.value.code == "A406"


@pytest.mark.parametrize("garbage", [b"not json\n", b"[1]\n", b'{"ok"\n', b"\xff\xfe\n", b'{"error":{"x":1}}\n'])
def test_an_answer_that_is_none_means_another_version(tmp_path: Path, garbage: bytes) -> None:
    assert refusal(tmp_path, garbage).code == "A208"


def test_a_connection_that_ends_without_an_answer_means_that_the_node_went_away(tmp_path: Path) -> None:
    assert refusal(tmp_path).code == "A401"


def test_a_stream_that_breaks_off_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    with node(tmp_path, b'{"ok":1}\n'), pytest.raises(UserError) as caught:
        list(Api(tmp_path).stream("ping"))
    assert caught.value.code == "A401"


def test_an_end_without_an_answer_means_another_version(tmp_path: Path) -> None:
    assert refusal(tmp_path, b'{"end":true}\n').code == "A208"
    with pytest.raises(UserError) as caught:
        view(b'{"invite":1}', InviteView)
    assert caught.value.code == "A208"


def test_an_endless_answer_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "ANSWER_BYTES_MAX", 1000)
    assert refusal(tmp_path, bytes(100_000)).code == "A208"


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Api(tmp_path / ("x" * 120)).call("status")
    assert caught.value.code == "A109"


def test_a_state_directory_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError) as caught:
        Api(tmp_path / "file").call("status")
    assert (caught.value.code, caught.value.where) == ("A110", f"{tmp_path}/file/control.sock: Not a directory")
