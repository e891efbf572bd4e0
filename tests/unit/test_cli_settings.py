# SPDX-License-Identifier: Apache-2.0
"""Flag, then environment, then file, then default; and nothing unknown."""

from pathlib import Path

import pytest

from atoll.base.errors import UserError
from atoll.cli import settings
from atoll.cli.settings import DEFAULTS, environment_name, load


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "atoll.toml"
    path.write_text(text)
    return path


def test_the_nearer_source_wins(tmp_path: Path) -> None:
    path = written(tmp_path, 'name = "from-file"\nlisten = "from-file"\nrelay = "never"\nrelay-budget = 20\n')
    environment = {"ATOLL_NAME": "from-env", "ATOLL_LISTEN": "from-env", "ATOLL_STATE": ""}
    loaded = load({"name": "from-flag", "state": "/s"}, environment, path)
    assert {key: (one.value, one.origin) for key, one in loaded.items()} == {
        "state": ("/s", "flag --state"),
        "name": ("from-flag", "flag --name"),
        "listen": ("from-env", "environment ATOLL_LISTEN"),
        "tcp": (None, "default"),
        "advertise": (None, "default"),
        "relay": ("never", f"file {path}"),
        "relay-budget": ("20", f"file {path}"),
        "group-name": (None, "default"),
        "tun": (None, "default"),
        "metrics": (None, "default"),
    }


def test_an_empty_state_directory_is_not_the_current_one() -> None:
    with pytest.raises(UserError) as caught:
        load({"state": ""}, {}, None)
    assert caught.value.code == "A501"


@pytest.mark.parametrize("how", ["flag", "environment", "file"])
def test_a_tilde_is_written_out_wherever_the_state_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("HOME", "/h")
    flags = {"state": "~/x" if how == "flag" else None}
    environment = {"ATOLL_STATE": "~/x"} if how == "environment" else {}
    path = written(tmp_path, 'state = "~/x"\n' if how == "file" else "")
    assert load(flags, environment, path)["state"].value == "/h/x"
    assert load({"state": "./~", "name": "~"}, {}, path)["state"].value == "./~"
    assert load({"name": "~"}, {}, path)["name"].value == "~"


def test_a_tilde_is_written_out_in_the_name_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    written(tmp_path, 'name = "fra"\n')
    assert load({}, {"ATOLL_CONFIG": "~/atoll.toml"}, None)["name"].value == "fra"
    assert load({}, {}, Path("~/atoll.toml"))["name"].value == "fra"


def test_the_home_of_nobody_is_refused() -> None:
    with pytest.raises(UserError) as caught:
        load({"state": "~no-such-user/x"}, {"ATOLL_CONFIG": "/dev/null"}, None)
    assert (caught.value.code, caught.value.where) == ("A501", "flag --state: ~no-such-user/x")


@pytest.mark.parametrize("key", DEFAULTS)
@pytest.mark.parametrize("written_as", ["a\\u0000b", "a\\u001b[2Jb", "a\\nb"])
def test_what_no_name_or_path_can_hold_is_refused_with_its_origin(tmp_path: Path, key: str, written_as: str) -> None:
    path = written(tmp_path, f'{key} = "{written_as}"\n')
    with pytest.raises(UserError) as caught:
        load({}, {}, path)
    assert caught.value.code == "A501"
    assert caught.value.where.startswith(f"file {path}: 'a\\")
    assert caught.value.where.isprintable()


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load({}, {"ATOLL_NAME": "a\udcff"}, written(tmp_path, ""))
    assert (caught.value.code, caught.value.where) == ("A501", "environment ATOLL_NAME: 'a\\udcff'")
    with pytest.raises(UserError) as caught:
        load({}, {}, Path("/a\0b"))
    assert (caught.value.code, caught.value.where) == ("A501", "flag --config: '/a\\x00b'")


def test_every_key_has_an_environment_variable() -> None:
    assert environment_name("relay-budget") == "ATOLL_RELAY_BUDGET"
    for key in DEFAULTS:
        loaded = load({}, {environment_name(key): "x", "ATOLL_CONFIG": "/dev/null"}, None)
        assert loaded[key].value == "x"


def test_the_state_directory_has_a_default(tmp_path: Path) -> None:
    loaded = load({}, {}, written(tmp_path, ""))
    assert loaded["state"].origin == "default"
    assert str(loaded["state"].value).endswith("atoll")


@pytest.mark.parametrize(
    ("text", "sentence", "fix"),
    [
        ('naem = "x"', "unknown key 'naem' in the configuration file", "did you mean 'name'?"),
        ('relay_budget = "x"', "unknown key 'relay_budget' in the configuration file", "did you mean 'relay-budget'?"),
        ('zzz = "x"', "unknown key 'zzz' in the configuration file", "known keys: state, name"),
        ("name = [1]", "the value of 'name' must be a string or a number", "atoll config show --origin"),
        ("name = true", "the value of 'name' must be a string or a number", "atoll config show --origin"),
        ("name = ", "the configuration file is not TOML", "mend that line"),
    ],
)
def test_a_wrong_file_is_refused_and_says_what_to_do(tmp_path: Path, text: str, sentence: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        load({}, {}, written(tmp_path, text))
    assert (caught.value.code, caught.value.sentence) == ("A501", sentence)
    assert caught.value.fix.startswith(fix)


def test_a_named_file_must_exist_but_the_default_one_need_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.toml"
    with pytest.raises(UserError, match="cannot be read"):
        load({}, {}, missing)
    with pytest.raises(UserError, match="cannot be read"):
        load({}, {"ATOLL_CONFIG": str(missing)}, None)
    monkeypatch.setattr(settings, "default_config", lambda: missing)
    assert load({}, {}, None)["name"].origin == "default"
