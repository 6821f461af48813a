"""`python -m tests.audit`: known vulnerabilities of the versions that constraints.txt names (pip-audit).

Asks OSV, then PyPI. A service is believed only where it knows of a version that is known to be vulnerable: a mirror
that has no advisories would find nothing, ever. Exit code: 0 nothing found, 1 something found, 0 where no service can
be asked, which is told; with `--strict` 3 then.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CANARY = "jinja2==2.10"  # CVE-2019-10906 and others
SERVICES = ("osv", "pypi")
LIMIT = 600  # seconds of a whole audit

Ask = Callable[[str, Path], "dict[str, Any] | None"]


def pip_audit(service: str, requirements: Path) -> dict[str, Any] | None:
    """pip-audit's report; None where the service could not be asked."""
    command = [
        *(sys.executable, "-m", "pip_audit", "-r", str(requirements), "--no-deps", "--disable-pip"),
        *("--format", "json", "--progress-spinner", "off", "--vulnerability-service", service, "--timeout", "15"),
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
        report: dict[str, Any] = json.loads(done.stdout)
    except (subprocess.TimeoutExpired, json.JSONDecodeError):
        return None
    return report


def findings(report: dict[str, Any]) -> list[str]:
    return [
        f"{package['name']} {package['version']}: {one['id']}"
        + (f", mended in {', '.join(one['fix_versions'])}" if one.get("fix_versions") else "")
        for package in report["dependencies"]
        for one in package.get("vulns", ())
    ]


def skipped(report: dict[str, Any]) -> list[str]:
    return [package["skip_reason"] for package in report["dependencies"] if "skip_reason" in package]


def audit(lock: Path, ask: Ask = pip_audit, strict: bool = False) -> int:
    with tempfile.TemporaryDirectory() as folder:
        canary = Path(folder) / "canary.txt"
        canary.write_text(CANARY + "\n")
        for service in SERVICES:
            known = ask(service, canary)
            if known is None or not findings(known):
                print(f"{service}: cannot be asked from here, or does not know that {CANARY} is vulnerable")
                continue
            report = ask(service, lock)
            if report is None:
                print(f"{service}: gave no answer about {lock.name}")
                continue
            return _tell(service, lock, report)
    print(
        f"NOT AUDITED: no service of advisories can be reached; run it where one can. Nothing is known of {lock.name}"
    )
    return 3 if strict else 0


def _tell(service: str, lock: Path, report: dict[str, Any]) -> int:
    found = findings(report)
    for line in found + skipped(report):
        print(line)
    print(f"{lock.name}: {len(report['dependencies'])} packages asked of {service}, {len(found)} findings")
    return 1 if found else 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lock", nargs="?", type=Path, default=ROOT / "constraints.txt")
    parser.add_argument("--strict", action="store_true", help="fail where no service can be asked")
    given = parser.parse_args(arguments)
    return audit(given.lock, strict=given.strict)


if __name__ == "__main__":
    sys.exit(main())
