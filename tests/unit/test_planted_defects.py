"""The defects that `brain verify --planted` looks for can be planted: what they replace stands in the source, once."""

import pytest

from tests.faults.faults import FAULTS, HEAVY, OF_THE_SYSTEM
from tests.faults.sabotage import DEFECTS, Defect, planted


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.name)
def test_a_defect_changes_a_copy_of_the_source(defect: Defect):
    with planted(defect) as tree:
        for path, right, wrong in defect.edits:
            text = (tree / path).read_text()
            assert wrong in text and (right not in text or right in wrong)


def test_the_names_of_faults_are_unique():
    for faults in (FAULTS + HEAVY, OF_THE_SYSTEM + HEAVY):
        assert len({fault.name for fault in faults}) == len(faults)
