"""The built-in page in Chromium, with the keyboard alone.

Arguments: the base URL; the browser and its driver; the ids of the worker with the simulated engine, whose model is
`sim`, and of the one whose model is `odd`; a folder for pictures, where they are wanted.
"""

import json
import os
import sys
import time
from urllib.request import urlopen

os.environ.update(SE_OFFLINE="true", SE_AVOID_STATS="true")

from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import Select

url, program, program_driver, sim, odd = sys.argv[1:6]
pictures = sys.argv[6] if len(sys.argv) > 6 else None
ANSWER = "".join(f"t{n} " for n in range(16))
EVIL = "<img src=x onerror=\"document.title='bad'\">"

options = webdriver.ChromeOptions()
options.binary_location = program
for argument in (
    "--headless=new",
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--window-size=1280,860",
):
    options.add_argument(argument)
options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
driver = webdriver.Chrome(options=options, service=Service(program_driver))


def find(selector):
    return driver.find_element(By.CSS_SELECTOR, selector)


def every(selector):
    return driver.find_elements(By.CSS_SELECTOR, selector)


def text(selector):
    return driver.execute_script("return document.querySelector(arguments[0])?.textContent ?? null", selector)


def until(what, look, patience=20):
    end = time.monotonic() + patience
    while True:
        seen = look()
        if seen:
            return seen
        assert time.monotonic() < end, f"{what}: {driver.find_element(By.TAG_NAME, 'body').text}"
        time.sleep(0.02)


def keys(*pressed):
    ActionChains(driver).send_keys(*pressed).perform()


def focused():
    return driver.execute_script("return document.activeElement.id || document.activeElement.className")


def tab_to(name, back=False):
    for _ in range(20):
        if focused() == name:
            return
        if back:
            ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
        else:
            keys(Keys.TAB)
    raise AssertionError(f"{name} is not reached by Tab")


def choose(model):
    tab_to("model", back=True)
    keys(model)
    until(model, lambda: Select(find("#model")).first_selected_option.text == model)
    tab_to("prompt")


def ended(count):
    until(f"answer {count}", lambda: len(every('.answer[aria-busy="false"]')) == count)


def last(selector):
    found = every(f".turn:last-child .answer {selector}")
    return found[-1].get_attribute("textContent") if found else None


def picture(name):
    if pictures:
        driver.save_screenshot(f"{pictures}/{name}.png")


def emulate(scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})


requests = []


def sent():
    """All requests of the page so far."""
    for entry in driver.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            requests.append(message["params"]["request"])
    return requests


def in_flight():
    with urlopen(url + "/cluster") as answer:
        return json.load(answer)["in_flight"]


def loads():
    driver.get(url + "/")
    until("models", lambda: [one.text for one in Select(find("#model")).options] == ["odd", "sim"])
    assert driver.title == "tokenbus", driver.title
    assert focused() == "prompt", focused()
    until("workers", lambda: text("#workers") == "2 of 2")
    picture("empty-light")


def chats():
    choose("sim")
    keys("Hello")
    ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    keys(EVIL)
    assert not every(".turn"), "Shift and Enter made a new line"
    keys(Keys.ENTER)
    lengths = set()

    def whole():
        lengths.add(len(last(".text") or ""))
        return every('.turn:last-child .answer[aria-busy="false"]')

    until("a slot in use", lambda: text(f'[data-worker="{sim}"] .use') == "1 of 4 slots")
    assert not find("#send").is_displayed() and find("#stop").is_displayed()
    picture("streaming-light")
    until("the answer", whole)
    assert last(".text") == ANSWER, last(".text")
    assert len([length for length in lengths if 0 < length < len(ANSWER)]) >= 3, f"it is streamed: {lengths}"
    assert text(".turn .said") == f"Hello\n{EVIL}" and "16 tokens" in last(".facts")
    assert find("#log").get_attribute("aria-live") or find("#log").get_attribute("role") == "log"
    assert text("#announce") == "Answer complete"
    assert focused() == "prompt" and find("#send").is_displayed()


def stops():
    for stop in (lambda: keys(Keys.ESCAPE), lambda: (tab_to("stop"), keys(Keys.ENTER))):
        before = len(every(".answer"))
        keys("Again", Keys.ENTER)
        until("some text", lambda: len(every(".answer")) > before and last(".text"))
        stop()
        ended(before + 1)
        assert last(".note") == "stopped" and len(last(".text")) < len(ANSWER), last(".text")
        assert text("#announce") == "Stopped" and focused() == "prompt", focused()
    until("the gateway ends it", lambda: in_flight() == 0)
    until("the slot is free", lambda: text(f'[data-worker="{sim}"] .use') == "0 of 4 slots")


def shows_text_as_text():
    choose("odd")
    keys("What?", Keys.ENTER)
    ended(4)
    assert last(".thoughts div") == EVIL, last(".thoughts div")
    assert last(".text").startswith(EVIL) and last("pre") == "<b>b</b>" and last(".text").endswith("end")
    assert not every("img") and not every("b") and driver.title == "tokenbus"
    picture("code-light")


def tells_errors():
    keys("Bad", Keys.ENTER)
    ended(5)
    assert "This is not liked." in last(".failure") and "status 400" in last(".failure"), last(".failure")
    assert "odd_code" in last(".failure"), last(".failure")
    # By keyboard to "Try again": the next answer breaks off in the middle.
    again = find(".turn:last-child .failure button")
    for _ in range(20):
        if driver.switch_to.active_element == again:
            break
        ActionChains(driver).key_down(Keys.SHIFT).send_keys(Keys.TAB).key_up(Keys.SHIFT).perform()
    keys(Keys.ENTER)
    until("the failure", lambda: last(".failure") and "Out of memory." in last(".failure"))
    assert last(".text") == "half an " and "oom" in last(".failure"), last(".failure")
    picture("error-light")


def lives():
    # The answers before may still be on the last look at the cluster.
    until("free slots", lambda: text("#slots") == "0 of 6" and text("#waiting") == "0")
    rows = {one.get_attribute("data-worker"): one.text for one in every("#list li")}
    assert set(rows) == {sim, odd}, rows
    assert "of 4 slots" in rows[sim] and "ready" in rows[sim] and "of 2 slots" in rows[odd], rows
    assert text("#fresher") == "live" and not find("#trouble").is_displayed()
    count = """const all = performance.getEntriesByType("resource").filter((one) => one.name.endsWith("/cluster"));
        performance.clearResourceTimings(); return all.length"""
    driver.execute_script(count)
    until("another look", lambda: driver.execute_script(count) > 0)
    hide = """Object.defineProperty(document, "hidden", { configurable: true, get: () => arguments[0] });
        document.dispatchEvent(new Event("visibilitychange"));"""
    driver.execute_script(hide.replace("arguments[0]", "true"))
    driver.execute_script(count)
    time.sleep(2.5)
    assert driver.execute_script(count) == 0, "nobody looks, and it asks"
    driver.execute_script(hide.replace("arguments[0]", "false"))
    until("it looks again", lambda: driver.execute_script(count) > 0)


def keeps_the_key():
    tab_to("settings", back=True)
    keys(Keys.ENTER)
    assert find("#settings").get_attribute("aria-expanded") == "true"
    tab_to("system")
    keys("Be brief.")
    tab_to("key")
    keys("sk-secret", Keys.TAB)
    kept = driver.execute_script("return [JSON.stringify(sessionStorage), JSON.stringify(localStorage), document.cookie]")
    assert kept == ['{"tokenbus-key":"sk-secret"}', "{}", ""], kept
    until("a look with the key", lambda: any(one["headers"].get("authorization") == "Bearer sk-secret" for one in sent()))
    picture("settings-light")
    keys(Keys.ESCAPE)
    assert not find("#options").is_displayed() and focused() == "settings", focused()


def adapts():
    colours = "return [getComputedStyle(document.body).backgroundColor, getComputedStyle(document.body).color]"
    light = driver.execute_script(colours)
    emulate("dark")
    dark = driver.execute_script(colours)
    assert dark[0] != light[0] and dark[1] != light[1], (light, dark)
    picture("dark")
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    picture("narrow-dark")
    emulate("light")
    picture("narrow-light")
    for view, shown, hidden in (("chat", ".chat", ".cluster"), ("cluster", ".cluster", ".chat")):
        assert driver.execute_script("return document.body.dataset.view") == view
        assert find(shown).is_displayed() and not find(hidden).is_displayed(), view
        assert driver.execute_script("return document.documentElement.scrollWidth <= innerWidth"), view
        tab_to("view", back=view == "chat")
        if view == "cluster":
            picture("narrow-cluster")
        keys(Keys.SPACE)
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def names_everything():
    tree = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    roles = ("button", "textbox", "combobox", "link", "main", "complementary", "log")
    for node in tree:
        role = node.get("role", {}).get("value")
        if not node.get("ignored") and role in roles:
            assert node.get("name", {}).get("value"), node


def stays_at_home():
    for one in sent():
        assert one["url"].startswith((url + "/", "data:image/svg+xml")), one["url"]
    # The one refusal that was provoked is told by the browser as well.
    told = [entry for entry in driver.get_log("browser") if "400 (Bad Request)" not in entry["message"]]
    assert not told, told


try:
    for test in (
        loads,
        chats,
        stops,
        shows_text_as_text,
        tells_errors,
        lives,
        keeps_the_key,
        adapts,
        names_everything,
        stays_at_home,
    ):
        test()
        print("passed:", test.__name__, flush=True)
finally:
    driver.quit()
