"""The page of figures is made of the file that a run leaves."""

import json

import pytest

from bench import report

RUNS = sorted(report.RESULTS.glob("2*.json"))


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.stem)
def test_the_page_tells_every_server_of_a_run(run) -> None:
    results = json.loads(run.read_text("utf-8"))
    page = report.format_page(results)
    servers = {row["server"] for rows in results["delivery"].values() for row in rows}
    assert report.OWN in servers
    assert all(f"| {server} |" in page for server in servers)
    assert "| one mailbox |" in page and "## FETCH" in page and "## Memory" in page
