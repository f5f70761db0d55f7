from __future__ import annotations

import socket

import pytest

from core.errors import EmbeddedServerError
from huarizo.embedded import ports


def bind(port: int) -> socket.socket:
    other = socket.socket()
    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    other.bind(("127.0.0.1", port))
    other.listen()
    return other


def test_a_held_port_is_closed_to_others_and_open_once_let_go():
    with ports.hold_port() as held:
        port = held.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            bind(port)
        assert not ports.is_free(port)
    bind(port).close()


def test_ports_lie_below_the_range_of_outgoing_connections():
    assert all(ports.LOWEST <= ports.free_port() < ports.HIGHEST for _ in range(20))


def test_the_preferred_port_is_used_if_free_and_left_alone_if_taken():
    port = ports.free_port()
    assert ports.free_port(port) == port
    with bind(port):
        assert ports.free_port(port) != port


def test_a_machine_without_free_ports_is_a_typed_failure(monkeypatch):
    monkeypatch.setattr(ports, "_listen", lambda port: None)
    with pytest.raises(EmbeddedServerError, match="one free port"):
        ports.free_port()
