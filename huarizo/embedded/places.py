"""Where the servers' data lives: one folder per checkout, so two clones on one machine never meet.

<data home>/            root: 0711, so that the servers' user can pass through; else 0700
    lock, servers.json  who runs here, see `connection`
    postgres/           password, server.log, data/ (the server's own, 0700), run/ (its socket)
    broker/             password, server.conf, server.log, data/ (the server's own, 0700)
    binaries/           copies of servers that the servers' user could not reach otherwise
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import tempfile
from pathlib import Path

from core.errors import EmbeddedServerError
from huarizo.embedded.account import Account

HOME_VARIABLE = "HUARIZO_HOME"
# The shortest limit of the systems we run on (macOS: 104 bytes with the closing zero), less "/.s.PGSQL.12345.lock".
LONGEST_SOCKET_FOLDER = 103 - len("/.s.PGSQL.12345.lock")


def data_home(place: Path | None = None) -> Path:
    """The data folder of a checkout (default: the one this code runs from); it is not created here.

    HUARIZO_HOME names the folder outright. Otherwise root uses the system's state folder and others
    `$XDG_DATA_HOME` (`~/.local/share`), and the folder's name tells the checkout's name and a hash of its path.
    """
    chosen = os.environ.get(HOME_VARIABLE)
    if chosen:
        return Path(chosen).expanduser().absolute()
    checkout = (place or Path(__file__).parents[2]).resolve()
    name = re.sub(r"[^A-Za-z0-9]+", "-", checkout.name).strip("-").lower()[:24] or "root"
    key = f"{name}-{hashlib.sha256(os.fsencode(checkout)).hexdigest()[:10]}"
    return _state_root() / "huarizo" / key


def _state_root() -> Path:
    if os.geteuid() == 0:
        return Path("/usr/local/var" if sys.platform == "darwin" else "/var/lib")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def open_home(data_dir: Path, account: Account) -> None:
    """Create the data folder if need be and make sure that `account` can pass through it.

    Only folders made here get their mode here.

    Raises:
        EmbeddedServerError: the folder cannot be made, written or reached.
    """
    mode = 0o711 if account.switched else 0o700
    try:
        for folder in (data_dir, data_dir / "postgres", data_dir / "broker"):
            make_folder(folder, mode)
    except OSError as error:
        raise EmbeddedServerError(
            f"the data folder must be writable; {str(data_dir)!r}: {error.strerror}. Set {HOME_VARIABLE} to another"
        ) from error
    if not os.access(data_dir, os.W_OK | os.X_OK):
        owner = data_dir.stat().st_uid
        raise EmbeddedServerError(
            f"the data folder must be writable; {str(data_dir)!r} belongs to uid {owner!r} and this is uid "
            f"{os.geteuid()!r}. Run as that user or set {HOME_VARIABLE} to another folder"
        )
    if not account.can_execute([data_dir / "postgres"]):
        raise EmbeddedServerError(
            f"servers started by root run as uid {account.uid!r}, which must be able to enter the data folder; "
            f"{_first_closed(data_dir)} is closed to it. Set {HOME_VARIABLE} to a folder such as "
            "/var/lib/huarizo/mine, or start Huarizo as an ordinary user"
        )


def make_folder(folder: Path, mode: int) -> None:
    """Create `folder` with exactly this mode, whatever the umask; one that exists is left as it is."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        part.chmod(mode)


def _first_closed(folder: Path) -> str:
    for part in (*reversed(folder.parents), folder):
        mode = part.stat().st_mode
        if not mode & stat.S_IXOTH:
            return f"{str(part)!r} (mode {stat.S_IMODE(mode):04o})"
    return repr(str(folder))


def socket_folder(wanted: Path, account: Account) -> Path:
    """A folder for Unix sockets: `wanted`, or a short temporary one where its path is too long for a socket."""
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_FOLDER:
        account.give(wanted)
        return wanted
    short = Path(tempfile.mkdtemp(prefix="huarizo-", dir="/tmp"))
    account.give(short)
    return short
