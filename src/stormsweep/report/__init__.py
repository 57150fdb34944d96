"""The report: one HTML page, figures and tables, drawn from the journal and nothing else."""

from stormsweep.report.write import write_report

__all__ = ["write_report"]
