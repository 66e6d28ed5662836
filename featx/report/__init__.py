"""`featx report`: what a feature file holds, as one page of HTML that needs nothing else.

feature file --gather--> facts, columns, failures ------------------------------------+
             --layers--> points on a plane, exact neighbours, reduced vectors --------+--page--> report.html
videos       --thumbnails (decode workers)--> small pictures -------------------------+
"""

from featx.report.report import ReportSummary, write_report

__all__ = ["ReportSummary", "write_report"]
