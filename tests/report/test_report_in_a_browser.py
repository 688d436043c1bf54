"""A report in headless Chromium. Where there is no Chromium the tests are skipped, unless DISTILL_BROWSER=required."""

import importlib.util
import itertools
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers import write_run

from distill_lightning.cli import report
from distill_lightning.runs.summary import write_confusion

ATTACKS = [
    "</script><script>owned=1</script>",
    "<img src=x onerror=owned=2>",
    '<a href="https://example.com/owned">link</a>',
    "%{y} %{customdata}",
    "$$x^2$$ <b>bold</b> <br> &lt;i&gt;",
    "a name without any space " + "x" * 90,
]
FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1200,900",
)  # fmt: skip


def lacking() -> str | None:
    """What is missing for these tests; None if nothing is."""
    if not importlib.util.find_spec("selenium"):
        return "selenium is not installed: pip install -e '.[test]'"
    for program in ("chromium", "chromedriver"):
        if not shutil.which(program):
            return f"there is no {program}: apt-get install chromium chromium-driver"
    return None


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if missing := lacking():
        if os.environ.get("DISTILL_BROWSER") == "required":
            pytest.fail(missing)
        pytest.skip(missing)
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    """A report of runs whose names, options, metrics and classes are attacks."""
    folder = tmp_path_factory.mktemp("runs")
    for number, attack in enumerate(ATTACKS):
        for seed in range(2):
            name = f"{attack.replace('/', '')}-{seed}"
            run = write_run(folder / "logs" / "<b>data" / "baseline" / name, seed, lr=number, accuracy=0.8 + seed / 50)
            config = yaml.safe_load((run / "config.yaml").read_text())
            config["model"]["init_args"] |= {attack: attack, "network": attack}
            (run / "config.yaml").write_text(yaml.safe_dump(config))
            with open(run / "metrics.csv", "a") as file:
                file.writelines(f'{step},"{attack.replace(chr(34), chr(39))}",0.5\n' for step in (1, 2))
            counts = [[3 * (number + 1), number + 1, 0, 0, 0, 0]] * 6
            write_confusion(run, ATTACKS, counts)
            summary = json.loads((run / "summary.json").read_text())
            summary["metrics"][f"test/{attack}"] = 0.5
            summary["rounds"] = [{"round": 0, "density": 1.0, "test_accuracy": 0.9}, {"round": 1, "density": 0.5}]
            (run / "summary.json").write_text(json.dumps(summary))
    assert report.main([str(folder / "logs"), "--out", str(folder / "report.html")]) == 0
    return folder / "report.html"


@pytest.fixture
def page(browser, path):
    """The report, freshly opened. At the end, nothing must have gone wrong or have been asked for."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    media = [{"name": "prefers-color-scheme", "value": "light"}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    browser.get(path.as_uri())
    wait_until(browser, "return document.querySelectorAll('.chart .main-svg').length > 0")
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.owned") is None
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if url.startswith(("http", "ws", "//"))] == []
    assert asked  # the page itself: the log is there


def wait_until(driver, script: str, *args: Any) -> Any:
    """Waits for a script to give something true, and returns it."""
    for _ in range(200):
        if found := driver.execute_script(script, *args):
            return found
        time.sleep(0.05)
    raise AssertionError(f"never true: {script}")


def first_chart(driver):
    """The area of the first chart that takes the mouse, in the middle of the window."""
    area = driver.find_element("css selector", ".chart .nsewdrag")
    driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", area)
    return area


def test_hovering_over_a_curve_shows_values(page):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).move_to_element(first_chart(page)).perform()
    script = "return [...document.querySelectorAll('.chart .hoverlayer text')].map((one) => one.textContent)"
    words = wait_until(page, script)
    # 0.8 - 0.1 / 2 and 0.82 - 0.1 / 2
    assert sum("76.00 ± 1.41" in word or "76 ± 1.41" in word for word in words) == len(ATTACKS), words
    # what is written stays as it is written
    assert any("<img src=x" in word for word in words) and any("%{y}" in word for word in words)
    assert page.find_elements("css selector", ".chart a[href], .chart text a, main img, main script") == []


def test_a_curve_can_be_zoomed(page):
    from selenium.webdriver.common.action_chains import ActionChains

    first = "document.querySelector('.chart')._fullLayout.xaxis.range"
    before = page.execute_script(f"return {first}")
    area = first_chart(page)
    ActionChains(page).move_to_element_with_offset(area, -60, -40).click_and_hold().move_by_offset(
        120, 80
    ).release().perform()
    after = wait_until(page, f"const r = {first}; return r[0] > arguments[0] && r", before[0])
    assert before[0] < after[0] < after[1] < before[1]


def test_a_line_can_be_hidden(page):
    shown = "return document.querySelector('.chart').data.filter((one) => one.text).length"
    assert page.execute_script(shown) == len(ATTACKS)
    button = page.find_element("css selector", ".legend button")
    button.click()
    assert button.get_attribute("aria-pressed") == "false" and page.execute_script(shown) == len(ATTACKS) - 1
    button.click()
    assert button.get_attribute("aria-pressed") == "true" and page.execute_script(shown) == len(ATTACKS)


def test_light_and_dark(page):
    look = """return [getComputedStyle(document.body).backgroundColor,
        document.querySelector('.chart')._fullLayout.font.color]"""
    light = page.execute_script(look)
    page.find_element("id", "theme").click()
    dark = page.execute_script(look)
    assert light[0] == "rgb(255, 255, 255)" and dark[0] == "rgb(21, 23, 27)" and light[1] != dark[1]
    page.find_element("id", "theme").click()
    assert page.execute_script(look) == light
    # without a choice, the page is as the system is
    page.refresh()
    wait_until(page, "return document.querySelectorAll('.chart .main-svg').length > 0")
    media = [{"name": "prefers-color-scheme", "value": "dark"}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    turned = f"const look = (() => {{{look}}})(); return look[1] != arguments[0] && look"
    assert wait_until(page, turned, light[1]) == dark


def luminance(colour: str) -> float:
    """Relative luminance of #rrggbb (WCAG 2.2)."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_contrast(theme, page):
    names = ["ink", "soft", "accent", "paper", "raised", *(f"line-{place}" for place in range(8))]
    script = """document.documentElement.dataset.theme = arguments[0];
        const style = getComputedStyle(document.documentElement);
        return arguments[1].map((name) => style.getPropertyValue('--' + name).trim())"""
    colours = dict(zip(names, page.execute_script(script, theme, names), strict=True))
    for text in ("ink", "soft", "accent"):
        assert min(contrast(colours[text], colours[ground]) for ground in ("paper", "raised")) >= 4.5, text
    for line in names[5:]:
        assert contrast(colours[line], colours["paper"]) >= 3, (line, colours[line])


@pytest.mark.parametrize("width", [360, 768])
def test_a_phone_shows_the_page_without_scrolling_sideways(width, page):
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    page.refresh()
    wait_until(page, "return document.querySelectorAll('.chart .main-svg').length > 0")
    page.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    wait_until(page, "return document.querySelectorAll('.chart:not(:has(.main-svg))').length == 0")
    assert page.execute_script("return [innerWidth, document.documentElement.scrollWidth]") == [width, width]
    wide = "return [...document.querySelectorAll('.wide')].some((one) => one.scrollWidth > one.clientWidth)"
    assert page.execute_script(wide) or width > 360  # tables scroll on their own


def test_print_is_light_and_leaves_the_page_as_it_was(page):
    page.find_element("id", "theme").click()
    seen = "window.seen = []; addEventListener('beforeprint', () => seen.push(document.documentElement.dataset.theme))"
    page.execute_script(seen)
    pdf = page.execute_cdp_cmd("Page.printToPDF", {})["data"]
    assert len(pdf) > 10_000
    assert page.execute_script("return window.seen") == ["light"]
    assert page.execute_script("return document.documentElement.dataset.theme") == "dark"


def test_what_a_screen_reader_is_told(page):
    levels = page.execute_script(
        "return [...document.querySelectorAll('h1, h2, h3, h4')].map((one) => Number(one.tagName[1]))"
    )
    assert levels.count(1) == 1 and all(b <= a + 1 for a, b in itertools.pairwise(levels))
    for nameless in (
        "th:not([scope])", ".chart:not([aria-label])", "button:not([aria-label]):empty", ".wide:not([aria-label])",
        "html:not([lang])", "figure:not(:has(figcaption))",
    ):  # fmt: skip
        assert page.find_elements("css selector", nameless) == [], nameless
    words = page.find_element("css selector", ".chart").get_attribute("aria-label")
    assert "val/accuracy" in words and "Last values" in words


def test_another_confusion_matrix_can_be_chosen(page):
    from selenium.webdriver.support.ui import Select

    chart = page.find_element("css selector", ".chart[id$=confusion]")
    page.execute_script("arguments[0].scrollIntoView({block: 'center'})", chart)
    row = "return arguments[0].data[0].text[0].map(Number)"
    before = page.execute_script(row, chart)
    assert page.execute_script("return arguments[0].data[0].z[0]", chart) == [0.75, 0.25, 0, 0, 0, 0]
    Select(page.find_element("css selector", "select")).select_by_index(1)
    after = page.execute_script(row, chart)
    assert after != before and after in [[6 * n, 2 * n, 0, 0, 0, 0] for n in range(1, 7)]  # of two seeds
