"""A client of the service that commands talk to."""

from __future__ import annotations

from core.settings import Settings
from huarizo.client import Client
from huarizo.service.address import api_url


def connect() -> Client:
    """The client for HUARIZO_API_URL, else for the service of this checkout."""
    return Client(api_url(Settings()))
