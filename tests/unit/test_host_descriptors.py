# SPDX-License-Identifier: Apache-2.0
"""How many files may be open: raised as far as it may be, never lowered; and what the lack of them is called."""

import errno
import resource
from collections.abc import Generator

import pytest

from atoll.host.descriptors import descriptors_allowed, is_scarce


@pytest.fixture
def lowered() -> Generator[tuple[int, int]]:
    """Lower this process's limit for a while; return (soft, hard)."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = soft - 100 if soft != resource.RLIM_INFINITY else 1000
    resource.setrlimit(resource.RLIMIT_NOFILE, (low, hard))
    yield low, hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def soft_limit() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def test_the_limit_is_raised_to_what_is_wanted(lowered: tuple[int, int]) -> None:
    low, hard = lowered
    assert descriptors_allowed(low + 50) == low + 50
    assert resource.getrlimit(resource.RLIMIT_NOFILE) == (low + 50, hard)


def test_the_limit_is_never_lowered(lowered: tuple[int, int]) -> None:
    low, _ = lowered
    assert descriptors_allowed(low - 50) >= low - 50
    assert soft_limit() == low


def test_more_than_may_be_had_is_cut_to_what_may_be_had(lowered: tuple[int, int]) -> None:
    _, hard = lowered
    if hard == resource.RLIM_INFINITY:
        pytest.skip("this system sets no bound")
    assert descriptors_allowed(hard + 1) == hard
    assert soft_limit() == hard


def test_a_system_that_refuses_leaves_what_there_is(lowered: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    low, _ = lowered

    def refuse(_which: int, _limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    with monkeypatch.context() as patch:
        patch.setattr(resource, "setrlimit", refuse)
        assert descriptors_allowed(low + 50) == low
    assert soft_limit() == low


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_a_lack_of_files_is_known(number: int) -> None:
    assert is_scarce(OSError(number, "no more"))


@pytest.mark.parametrize(
    "error", [None, ValueError(), OSError(), OSError(errno.ENOENT, "missing"), TimeoutError(), ConnectionResetError()]
)
def test_other_errors_are_not_taken_for_a_lack_of_files(error: Exception | None) -> None:
    assert not is_scarce(error)
