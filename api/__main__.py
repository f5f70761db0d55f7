"""`python -m api`: the API and dashboard under uvicorn, on HUARIZO_HOST and HUARIZO_PORT."""

from __future__ import annotations

import uvicorn

from core.settings import Settings

#: An open download or poll must not hold up a restart for longer.
GRACE_SECONDS = 3


def main() -> None:
    """Serve until told to stop."""
    settings = Settings()
    uvicorn.run(
        "api.app:app_from_env",
        factory=True,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=GRACE_SECONDS,
        log_config=None,
        server_header=False,
    )


if __name__ == "__main__":
    main()
