"""Chromium, driven through its own protocol: what a page shows, and what is done to it by mouse and keyboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.helpers.waiting import until

CHROMIUM, DRIVER = Path("/usr/bin/chromium"), Path("/usr/bin/chromedriver")
T = TypeVar("T")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window, and with all of its logs. Skips the test where it is not installed."""
    if not (CHROMIUM.exists() and DRIVER.exists()):
        pytest.skip("Chromium and its driver are not installed")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--force-prefers-reduced-motion", "--window-size=1280,1000"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(str(DRIVER)))
    try:
        yield driver
    finally:
        driver.quit()
        driver.command_executor.close()


def as_opened(browser: Any) -> None:
    """At its usual size and colours, with nothing in its logs."""
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setFocusEmulationEnabled", {"enabled": True})  # the Tab key may have left it
    prefer_colours(browser, "light")
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")


def prefer_colours(browser: Any, scheme: str) -> None:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


def find(browser: Any, selector: str) -> Any:
    (found,) = browser.find_elements("css selector", selector)
    return found


def texts(browser: Any, selector: str) -> list[str]:
    return [each.text for each in browser.find_elements("css selector", selector)]


def press(browser: Any, *keys: str) -> None:
    from selenium.webdriver import ActionChains

    ActionChains(browser).send_keys(*keys).perform()


def open_page(browser: Any, path: Path) -> None:
    """Opens a file, and waits until whatever it has in it that runs has run."""
    browser.get(path.as_uri())
    until(lambda: browser.execute_script("return document.readyState") == "complete", f"{path.name} is loaded")
    # Behind everything that loading has put into the queue.
    browser.execute_async_script("requestAnimationFrame(() => setTimeout(arguments[0], 0))")


def eventually(check: Callable[[], T]) -> T:
    """What `check` comes to, once it is true."""
    return until(check, "what the page is to show")
