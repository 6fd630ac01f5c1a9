"""Reports: one HTML file each, nothing fetched, nothing executed."""

from learners.report.run_report import write_run_report
from learners.report.suite_report import write_suite_report

__all__ = ["write_run_report", "write_suite_report"]
