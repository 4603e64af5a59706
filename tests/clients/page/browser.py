"""Chromium and its driver, and what the tests of the page do with them. The program's argument is the plan, as JSON: see
`run.py`."""

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

plan = json.loads(sys.argv[1])
url, sim, odd = plan["url"], plan["sim"], plan["odd"]
pictures = os.environ.get("PAGE_PICTURES")

settings = webdriver.ChromeOptions()
settings.binary_location = plan["browser"]
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
    settings.add_argument(argument)
settings.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
driver = webdriver.Chrome(options=settings, service=Service(plan["driver"]))


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
    for _ in range(200):
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
    return found[-1].get_attribute("textContent").strip() if found else None


def options():
    return [one.text for one in Select(find("#model")).options]


def say(words):
    """Sends a message and waits for the end of its answer."""
    before = len(every(".turn"))
    tab_to("prompt")
    keys(words, Keys.ENTER)
    until("the turn", lambda: len(every(".turn")) == before + 1)
    until("its answer", lambda: every('.turn:last-child .answer[aria-busy="false"]'))


def asked():
    """The bodies of all chat requests so far."""
    return [json.loads(one["postData"]) for one in sent() if one["url"].endswith("/chat/completions")]


def module(name, body):
    """What `body` of an async function returns, with the page's module `name` as `it`."""
    script = f"""const done = arguments[arguments.length - 1];
        import("/page/{name}").then(async (it) => {{ {body} }}).then(done, (error) => done(String(error)));"""
    return driver.execute_async_script(script)


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
