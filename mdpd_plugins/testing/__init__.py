"""The conformance kit: what every backbone must do, as checks that plugin authors run on their own.

In a test of your package::

    import pytest
    from mdpd_plugins.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_tiny(check):
        check("acme/tiny", width=32, depth=3)  # options of your build that make it small
"""

from mdpd_plugins.testing.kit import CHECKS, Check, check_backbone
from mdpd_plugins.testing.outcome import FAIL, NOT_APPLICABLE, PASS, NotApplicable, Outcome, Report

__all__ = [
    "CHECKS",
    "FAIL",
    "NOT_APPLICABLE",
    "PASS",
    "Check",
    "NotApplicable",
    "Outcome",
    "Report",
    "check_backbone",
]
