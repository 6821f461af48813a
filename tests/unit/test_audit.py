"""The audit of the lock: what it concludes from pip-audit's reports, and that it can read the lock."""

from pathlib import Path
from typing import Any

import pytest

from tests.audit import CANARY, ROOT, audit, pip_audit

VULNERABLE = {"name": "jinja2", "version": "2.10", "vulns": [{"id": "PYSEC-2019-217", "fix_versions": ["2.10.1"]}]}
FINE = {"name": "ray", "version": "2.60.0", "vulns": []}
UNKNOWN = {"name": "jinja2", "skip_reason": "Dependency not found on PyPI and could not be audited: jinja2 (2.10)"}


def asked(*reports: dict[str, Any] | None) -> Any:
    """Answers with one report after the other, each of one package."""
    left = list(reports)

    def ask(service: str, requirements: Path) -> dict[str, Any] | None:
        report = left.pop(0)
        return None if report is None else {"dependencies": [report], "fixes": []}

    return ask


@pytest.mark.parametrize(
    ("reports", "code", "strict", "words"),
    [
        ((VULNERABLE, FINE), 0, 0, "0 findings"),
        ((VULNERABLE, VULNERABLE), 1, 1, "jinja2 2.10: PYSEC-2019-217, mended in 2.10.1"),
        ((None, VULNERABLE, FINE), 0, 0, "asked of pypi"),
        ((None, UNKNOWN), 0, 3, "NOT AUDITED"),
        ((UNKNOWN, UNKNOWN), 0, 3, "NOT AUDITED"),
        ((VULNERABLE, None, VULNERABLE, VULNERABLE), 1, 1, "1 findings"),
        ((VULNERABLE, UNKNOWN), 0, 0, "could not be audited"),
    ],
)
def test_only_findings_fail_and_silence_is_told(
    reports: tuple[Any, ...], code: int, strict: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = ROOT / "constraints.txt"
    assert audit(lock, asked(*reports)) == code
    assert words in capsys.readouterr().out
    assert audit(lock, asked(*reports), strict=True) == strict


def test_pip_audit_reads_the_lock_as_it_is(tmp_path: Path) -> None:
    """A lock that it could not read would look like a service that cannot be reached."""
    lines = (ROOT / "constraints.txt").read_text().split()
    assert all(line.count("==") == 1 for line in lines)
    assert CANARY.split("==")[0] in {line.split("==")[0].lower() for line in lines}, "the canary is a package like ours"
    nothing = tmp_path / "nothing.txt"
    nothing.write_text("# no package\n")
    assert pip_audit("osv", nothing) == {"dependencies": [], "fixes": []}
