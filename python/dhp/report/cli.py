"""The command `dhp report`."""

from __future__ import annotations

import argparse
import json
import os
import sys

from dhp._core import InputError
from dhp.base.output import complain, printable, say, write_atomically
from dhp.report.page import page
from dhp.report.summary import Summary, headline, ordered, summarize
from dhp.watch.result import Result, read_result


def report(files: list[str], output: str = "", baseline: str = "") -> tuple[list[Summary], dict[str, str]]:
    """Reads results and writes the page to `output` ("": nowhere). Returns the summaries and why sections are left out.
    Raises InputError."""
    for file in files:
        if output and os.path.realpath(file) == os.path.realpath(output):
            raise InputError(f"-o: {output} is one of the results; give another path")
    results = [read_result(file) for file in files]
    summaries = summarize(results, baseline)
    _check_baseline(baseline, results, summaries)
    order = ordered(results, summaries)
    text, left_out = page([results[i] for i in order], [summaries[i] for i in order])
    if output:
        write_atomically("-o", output, text)
    return summaries, left_out


def _check_baseline(baseline: str, results: list[Result], summaries: list[Summary]) -> None:
    names = {summary.label for summary in summaries} | {result.planner for result in results}
    if baseline and baseline not in names:
        known = ", ".join(f'"{name}"' for name in sorted(names))
        raise InputError(f'--baseline: found "{baseline}", expected a result or planner: {known}')


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="dhp report", description="Make a page about simulated and measured runs; see docs/report.md"
    )
    parser.add_argument("results", nargs="+", metavar="RESULT.json", help="files that dhp simulate or dhp train wrote")
    parser.add_argument("-o", "--output", default="", metavar="FILE.html", help="the page (default: report.html)")
    parser.add_argument(
        "--baseline",
        default="",
        metavar="NAME",
        help="result or planner to compare with for speed-ups (default: the slowest)",
    )
    parser.add_argument(
        "--output-format", choices=("text", "json"), default="text", help="json: the numbers; a page only with -o"
    )
    options = parser.parse_args(arguments)
    as_json = options.output_format == "json"
    output = options.output or ("" if as_json else "report.html")
    try:
        summaries, left_out = report(options.results, output, options.baseline)
    except InputError as error:
        complain(f"dhp: error: {error}")
        return 2
    if as_json:
        text = json.dumps({"results": [summary.as_dict() for summary in summaries], "left_out": left_out}, indent=1)
    else:
        verdicts = [f"{summary.label}: {summary.verdict}" for summary in summaries]
        text = "\n".join([headline(summaries), *verdicts, f"wrote {output}"])
    return say(printable(text))


if __name__ == "__main__":
    sys.exit(main())
