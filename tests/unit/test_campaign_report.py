"""What a campaign's report says of it."""

import shutil

import pytest

from tests.e2e.brain import ROOT
from tests.faults import report
from tests.faults.campaign import Result
from tests.faults.injector import Injected


@pytest.mark.parametrize(
    ("recovered", "gave_up", "verdict"),
    [(1.5, False, "clean"), (None, True, "did not come back"), (None, False, "did not come back")],
)
def test_a_service_that_did_not_come_back_is_not_called_clean(tmp_path, recovered, gave_up, verdict):
    page = tmp_path / "verification.md"
    shutil.copy(ROOT / "docs" / "verification.md", page)
    (tmp_path / "pictures").mkdir()
    result = Result(987654321, 60, injected=[Injected(("Redis dies",), 1.0, 2.0, recovered)], gave_up=gave_up)
    report.write(page, result, [])
    row = next(line for line in page.read_text().splitlines() if "987654321" in line)
    assert verdict in row
