"""The scan finds a planted secret in every form, and nothing where there is none."""

import base64
import json
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import secrets_scan
from tests.secrets_scan import Found, scan

SECRET = 'pa/ss+"w\\örd-0123456789'
FORMS = {
    "plain": SECRET,
    "URL": f"postgresql://u:{quote(SECRET, safe='')}@h/d",
    "JSON": json.dumps({"password": SECRET}),
    "hexadecimal": SECRET.encode().hex(),
    **{f"base64 {n}": base64.b64encode(b"x" * n + SECRET.encode() + b"yz").decode() for n in range(4)},
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_secret_is_found_in_whatever_form(form: str, tmp_path: Path) -> None:
    log = tmp_path / "deep" / "er" / "a.log"
    log.parent.mkdir(parents=True)
    log.write_text(f"first\nsecond {form} more\nthird\n")
    (tmp_path / "b.log").write_text("nothing here\n" * 1000)
    found = scan([tmp_path], {"the password": SECRET})
    assert {(one.path, one.line) for one in found} == {(log, 2)}
    assert all(one.name.startswith("the password") for one in found)
    assert SECRET not in str(found)
    assert scan([tmp_path], {"another": "another-secret-0123"}) == []
    assert scan([tmp_path], {"the password": SECRET}, spared=[tmp_path / "deep"]) == []


@given(before=st.integers(0, 300), lines=st.integers(0, 9))
def test_a_secret_that_lies_across_two_pieces_is_found_with_its_line(
    before: int, lines: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    log = tmp_path_factory.mktemp("log") / "a.log"
    log.write_bytes(b"\n" * lines + b"x" * before + b"canary-of-the-test" + b"\nmore" * 40)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(secrets_scan, "PIECE", 64)
        assert scan([log], {"c": "canary-of-the-test"}) == [Found("c", log, lines + 1)]


def test_a_secret_too_short_to_be_told_apart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="fewer than 8"):
        scan([tmp_path], {"c": "short"})


def test_the_command_tells_where_and_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.log").write_text("key: canary-of-the-test\n")
    assert secrets_scan.main([str(tmp_path), "--canary", "operator=canary-of-the-test"]) == 1
    told = capsys.readouterr().out
    assert "a.log:1 holds operator" in told and "canary-of-the-test" not in told
    assert secrets_scan.main([str(tmp_path), "--canary", "operator=another-canary"]) == 0
