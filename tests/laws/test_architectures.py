"""Every law for every architecture, molecule and crystal, every spin treatment; and for the released checkpoint."""

from __future__ import annotations

import pytest

from tests.laws.subjects import Case, cases, subject
from tests.laws.suite import LAWS


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("case", cases(), ids=str)
def test_law(case: Case, law: str) -> None:
    LAWS[law](subject(case))
