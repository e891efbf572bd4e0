# SPDX-License-Identifier: Apache-2.0
"""A node's directory: made once, private, never replaced silently, and judged before it is believed."""

import stat
from pathlib import Path

import msgspec
import pytest

from atoll.base.errors import CorruptError, UserError
from atoll.base.member import RelayWill
from atoll.group.identity import IDENTITY_BYTES
from atoll.node.state import ROSTER_BYTES_MAX, SETTINGS_BYTES_MAX, STATE_FORMAT, Settings, StateDirectory

SETTINGS = Settings(name="one", group_name="blue-heron", listen="127.0.0.1:7747", relay=RelayWill.METERED)


def refusal(state: StateDirectory, what: str) -> UserError:
    with pytest.raises(UserError) as refused:
        getattr(state, what)()
    assert refused.value.fix
    return refused.value


def test_a_directory_is_made_private_and_belongs_to_one_process(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path / "a" / "b")
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700
    with pytest.raises(UserError) as refused:
        StateDirectory(state.path)
    assert refused.value.code == "A103"
    state.close()
    StateDirectory(state.path).close()


def test_an_identity_is_made_once_and_for_the_owner_alone(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    first = state.identity()
    path = tmp_path / "identity"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(path.read_bytes()) == IDENTITY_BYTES
    written = path.stat().st_mtime_ns
    assert state.identity().public_key == first.public_key
    assert path.stat().st_mtime_ns == written
    assert StateDirectory(tmp_path / "other").identity().public_key != first.public_key


def test_a_lost_identity_is_not_replaced_while_there_is_a_roster(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    state.keep_roster(b"roster")
    assert refusal(state, "identity").code == "A101"
    assert not (tmp_path / "identity").exists()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o601])
def test_an_identity_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    state = StateDirectory(tmp_path)
    state.identity()
    (tmp_path / "identity").chmod(mode)
    error = refusal(state, "identity")
    assert error.code == "A104"
    assert error.fix.startswith(f"chmod 600 {tmp_path / 'identity'}")


@pytest.mark.parametrize("content", [b"", b"short", bytes(IDENTITY_BYTES + 1), bytes(100_000)])
def test_an_identity_of_another_length_is_refused_and_kept(tmp_path: Path, content: bytes) -> None:
    state = StateDirectory(tmp_path)
    path = tmp_path / "identity"
    path.write_bytes(content)
    path.chmod(0o600)
    assert refusal(state, "identity").code == "A101"
    assert path.read_bytes() == content


def test_settings_come_back_as_they_were_kept(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.settings() is None
    state.keep_settings(SETTINGS)
    assert state.settings() == SETTINGS
    assert stat.S_IMODE((tmp_path / "settings.json").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b'{"format":1}', b'{"name":"one"}', b"[" * 60_000, b" " * (SETTINGS_BYTES_MAX + 1)],
    ids=lambda content: str(content[:10]),
)
def test_damaged_settings_are_told_and_kept(tmp_path: Path, content: bytes) -> None:
    state = StateDirectory(tmp_path)
    (tmp_path / "settings.json").write_bytes(content)
    assert refusal(state, "settings").code == "A108"
    assert (tmp_path / "settings.json").read_bytes() == content


@pytest.mark.parametrize("rest", [b"", b',"name":5', b',"surprise":[1,2]'])
def test_a_newer_format_is_told_whatever_else_it_says(tmp_path: Path, rest: bytes) -> None:
    state = StateDirectory(tmp_path)
    (tmp_path / "settings.json").write_bytes(b'{"format":%d%b}' % (STATE_FORMAT + 1, rest))
    error = refusal(state, "settings")
    assert error.code == "A106"
    assert str(STATE_FORMAT + 1) in error.where


def test_fields_that_we_do_not_know_yet_are_no_damage(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    content = msgspec.json.encode(SETTINGS)
    (tmp_path / "settings.json").write_bytes(content[:-1] + b',"colour":"blue"}')
    assert state.settings() == SETTINGS


def test_a_roster_is_replaced_whole(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    assert state.roster() is None
    state.keep_roster(b"first")
    state.keep_roster(b"second")
    assert state.roster() == b"second"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("roster")] == ["roster"]


def test_a_roster_beyond_all_limits_is_not_read(tmp_path: Path) -> None:
    state = StateDirectory(tmp_path)
    (tmp_path / "roster").write_bytes(bytes(ROSTER_BYTES_MAX + 1))
    assert refusal(state, "roster").code == "A108"
    (tmp_path / "roster").unlink()
    (tmp_path / "roster").mkdir()
    assert refusal(state, "roster").code == "A110", "not damaged: it cannot be read"


def test_a_damaged_roster_names_the_file_and_a_way_back(tmp_path: Path) -> None:
    error = StateDirectory(tmp_path).damaged_roster(CorruptError("a statement of 3 bytes"))
    assert (error.code, error.where) == ("A108", "a statement of 3 bytes")
    assert str(tmp_path / "roster") in error.sentence
    assert error.fix


@pytest.mark.parametrize("content", [b"", b"1234567", b"123456789", bytes(5000)])
def test_a_damaged_timestamp_is_none_at_all(tmp_path: Path, content: bytes) -> None:
    state = StateDirectory(tmp_path)
    assert state.timestamp_ns() == 0
    state.keep_timestamp(1_800_000_000_000_000_001)
    assert state.timestamp_ns() == 1_800_000_000_000_000_001
    (tmp_path / "timestamp").write_bytes(content)
    assert state.timestamp_ns() == 0


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError) as refused:
            StateDirectory(path)
        assert refused.value.code == "A110"
        assert refused.value.fix
