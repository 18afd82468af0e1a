"""`dhp report`: one self-contained page about any number of results, simulated or measured; docs/report.md.

summary.py makes the numbers, charts.py and timeline.py the charts, page.py the page. page.html, page.css and page.js
are what of it does not depend on results.
"""
