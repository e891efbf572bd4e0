# SPDX-License-Identifier: Apache-2.0
"""A private network is used from outside, by sockets that were made in it; and a refusal names its step."""

import os
import socket
from collections.abc import Generator
from contextlib import closing

import pytest

from atoll.base.errors import LinkError
from atoll.host.namespaces import PrivateNetwork, make, more_sockets
from tests.netns.lan import cannot

pytestmark = pytest.mark.netns

ADDRESS = "fd00:0:1::2"


@pytest.fixture
def network() -> Generator[PrivateNetwork]:
    try:
        made = make(socket.inet_pton(socket.AF_INET6, ADDRESS), 48, 1280, 2)
    except LinkError as error:
        cannot(f"no private network here: {error}")
    yield made
    for one in made.stock:
        one.close()
    if made.sockets >= 0:
        os.close(made.sockets)
    made.close()


def test_sockets_stay_in_the_network_in_which_they_were_made(network: PrivateNetwork) -> None:
    listener, first = network.stock
    listener.bind((ADDRESS, 4432))
    listener.listen()
    (second,) = more_sockets(network.user, network.net, 1)
    for client in (first, second):
        with closing(client):
            client.connect((ADDRESS, 4432))
            accepted, (host, *_) = listener.accept()
            accepted.close()
            assert host == ADDRESS
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as outside, pytest.raises(OSError, match="assign"):
        outside.bind((ADDRESS, 0))


def test_what_is_no_network_cannot_be_entered() -> None:
    nowhere = os.open(os.devnull, os.O_RDONLY)
    try:
        with pytest.raises(LinkError, match="sockets: EINVAL"):
            more_sockets(nowhere, nowhere, 1)
    finally:
        os.close(nowhere)
