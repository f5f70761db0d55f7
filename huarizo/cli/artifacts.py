"""`huarizo artifacts` and `delete`: what the service keeps."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from huarizo.cli.console import out, print_json, say
from huarizo.cli.merge import size_text
from huarizo.cli.session import connect
from huarizo.cli.tables import when


def list_artifacts(*, limit: int, as_json: bool) -> None:
    """Print the newest artifacts."""
    with connect() as client:
        found = client.artifacts(limit=limit)
    if as_json:
        print_json(found)
        return
    grid = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("id", "kind", "job", "size", "digest", "created"):
        grid.add_column(column, overflow="fold")
    for artifact in found:
        size, digest = size_text(artifact["bytes"]), (artifact["weights_digest"] or "")[:16]
        cells = artifact["id"], artifact["kind"], artifact["job_id"] or "", size, digest, when(artifact["created_at"])
        grid.add_row(*map(Text, cells))
    out().print(grid)


def delete(artifact_id: str) -> None:
    """Delete one artifact."""
    with connect() as client:
        client.delete_artifact(artifact_id)
    say(f"{artifact_id} deleted")
