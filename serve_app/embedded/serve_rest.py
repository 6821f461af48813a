"""Ray Serve's REST API on the dashboard: what `serve deploy` calls, without importing ray."""

import http.client
import json
from dataclasses import dataclass
from typing import Any

APPLICATIONS = "/api/serve/applications/"


class Unreachable(Exception):
    """The dashboard does not answer (yet)."""


class DeployRefused(Exception):
    """Serve did not take the configuration, or could not carry it out."""


@dataclass(frozen=True, slots=True)
class ServeRest:
    """Blocking calls; run them in a thread."""

    host: str
    port: int
    token: str

    def version(self) -> None:
        """Raises `Unreachable` until the dashboard and its Serve module are there."""
        status, text = self._call("GET", APPLICATIONS, timeout=30)
        if status != 200:
            raise Unreachable(f"{status}: {text[:200]}")

    def deploy(self, config: dict[str, Any]) -> None:
        """Set what Serve runs. Raises `DeployRefused` with Serve's words."""
        status, text = self._call("PUT", APPLICATIONS, config, timeout=120)
        if status != 200:
            raise DeployRefused(_one_line(text))

    def failure(self) -> str | None:
        """Why an application cannot start, or None while there is hope."""
        for name, application in self._applications().items():
            if application.get("status") in ("DEPLOY_FAILED", "UNHEALTHY"):
                words = [application.get("message") or ""]
                words += [d["message"] for d in application.get("deployments", {}).values() if d.get("message")]
                return f"{name}: {_one_line(' '.join(words))}"
        return None

    def waiting_for(self) -> list[str]:
        """The deployments that are not healthy yet."""
        applications = self._applications().values()
        deployments = {name: d for a in applications for name, d in a.get("deployments", {}).items()}
        return [name for name, deployment in deployments.items() if deployment.get("status") != "HEALTHY"]

    def _applications(self) -> dict[str, dict[str, Any]]:
        status, text = self._call("GET", APPLICATIONS, timeout=30)
        if status != 200:
            raise Unreachable(f"{status}: {text[:200]}")
        applications: dict[str, dict[str, Any]] = json.loads(text).get("applications", {})
        return applications

    def delete(self, timeout: float) -> None:
        """Stop Serve; its replicas get their grace. `timeout` in seconds."""
        self._call("DELETE", APPLICATIONS, timeout=timeout)

    def _call(self, method: str, path: str, body: Any = None, timeout: float = 10) -> tuple[int, str]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=timeout)
        headers = {"authorization": f"Bearer {self.token}", "content-type": "application/json"}
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            return response.status, response.read().decode(errors="replace")
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(str(error) or type(error).__name__) from None
        finally:
            connection.close()


def is_ready(host: str, port: int, timeout: float = 5) -> bool:
    """Whether the API itself says that it is ready."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/health/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def components(host: str, port: int, key: str, name: str | None = None, timeout: float = 5) -> dict[str, Any]:
    """What `/health/detailed` tells of each component; nothing where it does not answer. `name`: under which it may be
    asked, where not under any."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        headers = {"authorization": f"Bearer {key}", **({"host": name} if name else {})}
        connection.request("GET", "/health/detailed", headers=headers)
        response = connection.getresponse()
        told = json.loads(response.read()) if response.status == 200 else {}
        return dict(told.get("components", {}))
    except (OSError, http.client.HTTPException, ValueError):
        return {}
    finally:
        connection.close()


def _one_line(text: str, limit: int = 300) -> str:
    """The end of a message: for a traceback, the exception itself."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if any(line.startswith("Traceback") for line in lines):
        lines = lines[-1:]
    return " ".join(lines)[-limit:]
