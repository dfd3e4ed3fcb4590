"""Headless Chromium, driven by Debian's chromedriver."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

TIMEOUT = 10

SIZES = {"phone": (390, 844), "desktop": (1280, 900)}

ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


class BrowserMissing(Exception):
    """Chromium or its driver is missing; install chromium and chromium-driver."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Browser(webdriver.Chrome):
    """
    A fresh browser with a profile of its own in `directory`.

        with Browser(tmp_path / "ann", size="phone") as browser:
            browser.get(node.url)
            browser.find("h1").text

    `size` is "phone" (with touch and a mobile viewport) or "desktop".
    """

    def __init__(self, directory: Path, *, size: str = "desktop") -> None:
        programs = [_which("chromium", "google-chrome"), _which("chromedriver")]
        if not all(programs):
            raise BrowserMissing()
        self.directory = directory
        self.directory.mkdir(parents=True)
        super().__init__(
            options=_options(programs[0], directory, size),
            service=Service(programs[1], log_output=str(directory / "driver.log")),
        )

    def find(self, css: str) -> WebElement:
        """Wait for the first element that matches and return it."""
        return self.eventually(lambda: next(iter(self.find_all(css)), None), css)

    def find_all(self, css: str) -> list[WebElement]:
        """Return the elements that match now."""
        return self.find_elements(By.CSS_SELECTOR, css)

    def texts(self, css: str) -> list[str]:
        """Return the texts of the elements that match now, read at one moment."""
        script = (
            "return [...document.querySelectorAll(arguments[0])]"
            ".map(element => element.innerText.trim())"
        )
        return list(self.execute_script(script, css))

    def eventually(
        self, probe: Callable[[], Any], what: str = "", timeout: float = TIMEOUT
    ) -> Any:
        """Wait until `probe()` is true and return its value."""
        wait = WebDriverWait(self, timeout, poll_frequency=0.05)
        return wait.until(lambda _: probe(), f"not seen in time: {what}")

    def screenshot(self, name: str) -> Path:
        """Save what is seen as a PNG in the browser's directory; return its path."""
        path = self.directory / f"{name}.png"
        if not self.save_screenshot(str(path)):
            raise OSError(f"cannot write {path}")
        return path

    def console_errors(self) -> list[str]:
        """Return what the console said of errors since the last call."""
        entries = self.get_log("browser")
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]


def _options(binary: str, directory: Path, size: str) -> webdriver.ChromeOptions:
    width, height = SIZES[size]
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.add_argument(f"--user-data-dir={directory / 'profile'}")
    options.add_argument(f"--window-size={width},{height}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    if size == "phone":
        metrics = {"width": width, "height": height, "pixelRatio": 2.0}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    return options


def _which(*names: str) -> str | None:
    return next(filter(None, map(shutil.which, names)), None)
