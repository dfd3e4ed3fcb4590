"""Browser, on pages that need no server."""

import shutil

import pytest
from selenium.common.exceptions import TimeoutException

from tests.helpers.browser import Browser, BrowserMissing

PAGE = """data:text/html,
<meta name="viewport" content="width=device-width">
<ul id="list"></ul>
<script>
setTimeout(() => {
  for (const name of ["ann", "bob"]) {
    const item = document.createElement("li");
    item.textContent = name;
    document.getElementById("list").append(item);
  }
  console.error("wrong");
  console.log("fine");
}, 100);
</script>"""


@pytest.mark.parametrize("size, width", [("phone", 390), ("desktop", 1280)])
def test_it_sees_reports_and_takes_pictures(open_browser, size, width):
    browser = open_browser(size)
    browser.get(PAGE)
    assert browser.find("li").text == "ann"
    assert browser.texts("li") == ["ann", "bob"]
    assert len(browser.find_all("li")) == 2
    assert browser.execute_script("return innerWidth") == width
    (error,) = browser.console_errors()
    assert '"wrong"' in error
    assert browser.console_errors() == []
    assert browser.screenshot("list").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(TimeoutException, match="not seen in time: the end"):
        browser.eventually(lambda: False, "the end", timeout=0.1)


def test_a_missing_browser_has_a_name(monkeypatch, tmp_path):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(BrowserMissing, match="chromium-driver"):
        Browser(tmp_path / "browser")
