"""Photograph a page as the README shows it: `python docs/screenshots.py results/standard docs/pictures`.

It needs playwright and Debian's Chromium. The page is made first.
"""

import sys
from pathlib import Path
from shutil import which
from typing import Any

from playwright.sync_api import sync_playwright

from lockstep_bench.harness.report.write import write_report

VIEWS: Any = {
    "report-desktop": {"viewport": {"width": 1280, "height": 1000}, "color_scheme": "light"},
    "report-phone": {"viewport": {"width": 390, "height": 1000}, "color_scheme": "dark"},
}


def photograph(folder: Path, out: Path) -> None:
    """The top of the page on a desk in light, and on a phone in dark."""
    write_report(folder)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=which("chromium"), args=["--no-sandbox", "--disable-gpu"])
        for name, view in VIEWS.items():
            page = browser.new_page(**view)
            page.goto((folder / "report.html").resolve().as_uri())
            if name == "report-phone":
                page.locator("#charts").scroll_into_view_if_needed()
                page.evaluate("document.getElementById('charts').scrollIntoView()")
            page.wait_for_timeout(1000)
            page.screenshot(path=out / f"{name}.png")
        browser.close()


if __name__ == "__main__":
    photograph(Path(sys.argv[1]), Path(sys.argv[2]))
