"""What a Brain must not have written into a log: the secrets that it was given and those that it made."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

from serve_app.embedded.folder import DataFolder
from tests.e2e.brain import PASSWORD, PROVIDER_KEY, Brain
from tests.secrets_scan import SHORTEST, scan


def leaked(brain: Brain) -> list[str]:
    """Where a secret stands in a log of this Brain: in its own output, its servers', Ray's and Serve's."""
    folder = DataFolder(brain.data)
    canaries = {"a provider's key": PROVIDER_KEY, "a user's password": PASSWORD, **_kept(folder.secrets)}
    for name in ("BRAIN_DATABASE_URL", "BRAIN_REDIS_URL"):
        password = unquote(urlsplit(brain.environment.get(name, "")).password or "")
        if len(password) >= SHORTEST:
            canaries[f"the password of {name}"] = password
    sessions = folder.runtime() / "r" / "t"
    logs = [path / "logs" for path in sessions.glob("session_2*")]
    assert logs, f"there are no logs of Ray below {sessions}"
    # the operator's key is printed at the start, for whoever started it
    printed = scan([brain.log], {name: value for name, value in canaries.items() if value != brain.key})
    return [str(one) for one in (*printed, *scan([folder.logs, *logs], {**canaries, "the operator's key": brain.key}))]


def _kept(secrets: Path) -> dict[str, str]:
    """The secrets that the data folder keeps, by the names of their files."""
    kept = {path.name: path.read_text().strip() for path in secrets.iterdir() if path.is_file()}
    return {f"the secret {name}": value for name, value in kept.items() if len(value) >= SHORTEST}
