"""A headless Chromium for the tests that look at a page, with what it asked of a network and what its console said."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["Browser", "open_browser"]

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1500,1000")
PATIENCE_SECONDS = 60


class Browser:
    """One browser, one page at a time."""

    def __init__(self, driver) -> None:
        self._driver = driver

    def open(self, page: Path, width: int = 1500, height: int = 1000, dark: bool = False) -> None:
        """Load a page from a file and wait until it says that it is drawn."""
        self.js("return 0")
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self._driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._driver.get(page.as_uri())
        self.until("return document.documentElement.dataset.ready === 'yes'")

    def js(self, code: str, *args: object) -> object:
        return self._driver.execute_script(code, *args)

    def until(self, code: str, *args: object) -> object:
        """What the code returns once that is true."""
        end = time.monotonic() + PATIENCE_SECONDS
        while not (found := self.js(code, *args)):
            assert time.monotonic() < end, f"never true: {code}"
        return found

    def pointer(self, x: float, y: float, click: bool = False) -> None:
        from selenium.webdriver.common.action_chains import ActionChains

        chain = ActionChains(self._driver, duration=10)
        chain.w3c_actions.pointer_action.move_to_location(round(x), round(y))
        if click:
            chain.w3c_actions.pointer_action.click()
        chain.perform()

    def press(self, *names: str) -> None:
        """Press keys, by the names of selenium's Keys ("TAB") or as characters, wherever the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for name in names:
            ActionChains(self._driver).send_keys(getattr(Keys, name, name)).perform()

    def console(self) -> list[str]:
        """What was written to the console since the last look, warnings and errors of the browser's own included."""
        return [entry["message"] for entry in self._driver.get_log("browser")]

    def requests(self) -> list[str]:
        """The addresses that were asked for since the last look."""
        messages = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        return [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]


@contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """Start Chromium with its files in `profile`, or skip with a reason; it is ended with the block."""
    selenium: Callable = pytest.importorskip("selenium", reason="selenium, of the extra 'test', is not installed")
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip("there is no Chromium with its driver (Debian: chromium, chromium-driver)")
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    assert selenium
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(driver_program, log_output=os.devnull)
    try:
        driver = webdriver.Chrome(options=options, service=service)
    except WebDriverException as error:
        pytest.skip(f"Chromium does not start here: {str(error).splitlines()[0]}")
    try:
        yield Browser(driver)
    finally:
        driver.quit()
