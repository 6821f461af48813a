"""The program in HAProxy's place, run over a configuration as Serve renders it."""

import subprocess
from pathlib import Path

import pytest

from serve_app.embedded import haproxy

RENDERED = """\
frontend prometheus
    bind :{metrics}
    mode http
frontend http_frontend
    bind 127.0.0.1:{port}
    http-request return status 200 content-type text/plain string "success" if TRUE
listen stats
  bind *:{stats}
  stats enable
"""


@pytest.fixture
def edited(tmp_path: Path) -> str:
    echo = tmp_path / "real"
    echo.write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    echo.chmod(0o700)
    config = tmp_path / "with space" / "haproxy.cfg"
    config.parent.mkdir()
    config.write_text(RENDERED.format(metrics=12001, port=8000, stats=12002))
    program = tmp_path / "haproxy"
    program.write_text(haproxy.script("0.0.0.0", 8000, echo))
    program.chmod(0o700)
    run = subprocess.run([program, "-db", "-f", config, "-dR"], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines() == ["-db", "-f", str(config), "-dR"]
    assert [path.name for path in config.parent.iterdir()] == ["haproxy.cfg"]
    return config.read_text()


def test_only_the_frontend_listens_beyond_loopback(edited: str) -> None:
    binds = [line.strip() for line in edited.splitlines() if line.strip().startswith("bind")]
    assert binds == ["bind 127.0.0.1:12001", "bind 0.0.0.0:8000", "bind 127.0.0.1:12002"]


def test_headers_that_serve_obeys_are_removed_first(edited: str) -> None:
    frontend = edited.split("frontend http_frontend\n")[1].splitlines()
    rules = [line.strip() for line in frontend if line.strip().startswith("http-request")]
    removed = rules[: len(haproxy.OBEYED_BY_SERVE) + 1]
    assert all(rule.startswith("http-request del-header") for rule in removed)
    assert rules[len(removed)].startswith("http-request return")


def test_haproxy_takes_the_edited_configuration(edited: str, tmp_path: Path) -> None:
    config = tmp_path / "checked.cfg"
    config.write_text(
        "defaults\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n  mode http\n" + edited
    )
    checked = subprocess.run([haproxy.bundled(), "-c", "-f", config], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
