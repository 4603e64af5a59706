"""The live view: workers, ten minutes of one, models that go, numbers that are old."""

import os
import signal
import time

from browser import Keys, driver, every, find, focused, keys, odd, options, picture, plan, sim, tab_to, text, until


def lives():
    # The answers before may still be on the last look at the cluster.
    until("free slots", lambda: text("#slots") == "0 of 6" and text("#waiting") == "0")
    rows = {one.get_attribute("data-worker"): one.text for one in every("#list li")}
    assert set(rows) == {sim, odd}, rows
    assert "of 4 slots" in rows[sim] and "ready" in rows[sim] and "of 2 slots" in rows[odd], rows
    assert {one.get_attribute("data-model") for one in every("#served li")} == {"sim", "odd"}
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


def shows_ten_minutes():
    link = find(f'[data-worker="{sim}"] a')
    driver.execute_script("arguments[0].focus()", link)
    looks = driver.execute_script("return performance.getEntriesByType('resource').length")
    until("two looks", lambda: driver.execute_script("return performance.getEntriesByType('resource').length") > looks + 1)
    assert driver.switch_to.active_element == link, "the focus stays on a row that is drawn again"
    keys(Keys.ENTER)
    until("the worker", lambda: find("#detail").is_displayed() and text("#name") == sim)
    assert not find("#whole").is_displayed() and text("#state") == "ready" and focused() == "back"
    lines = "return [...document.querySelectorAll('#charts .line')].map((one) => one.getAttribute('d'))"
    until("a line", lambda: driver.execute_script(lines)[0].count("L") >= 2)
    titles = [one.text for one in every("#charts figure:not([hidden]) figcaption span")]
    assert titles[:4] == ["Slots in use", "Tokens per second", "Waiting", "Time to the first token"], titles
    picture("worker-light")
    driver.execute_script("location.hash = 'model=sim'")
    until("the model", lambda: text("#name") == "sim" and text("#kind") == "Model" and sim in text("#what"))
    until("its line", lambda: driver.execute_script(lines)[3].count("L") >= 2)
    tab_to("back", back=True)
    keys(Keys.ENTER)
    until("all again", lambda: find("#whole").is_displayed())


def says_that_a_model_is_gone():
    until("the choice", lambda: find("#model").get_property("value") == "odd")
    assert not find("#gone").is_displayed()
    os.kill(plan["odd_pid"], signal.SIGSTOP)
    until("it is said", lambda: find("#gone").is_displayed() and "The model odd is not live" in text("#gone"))
    assert options() == ["odd (not live)", "sim"] and find("#model").get_property("value") == "odd", options()
    tab_to("prompt")
    before = len(every(".turn"))
    keys("Anybody?", Keys.ENTER)
    assert len(every(".turn")) == before and not find("#send").is_enabled(), "another model is not asked in its place"
    until("the lost worker", lambda: every(f'[data-lost="{odd}"]') and "silent for" in text(f'[data-lost="{odd}"]'))
    picture("gone-light")
    os.kill(plan["odd_pid"], signal.SIGCONT)
    until("it is back", lambda: not find("#gone").is_displayed() and options() == ["odd", "sim"], 60)
    until("it can be asked", lambda: find("#send").is_enabled())
    until("the worker is back", lambda: every(f'[data-worker="{odd}"]') and not every(f'[data-lost="{odd}"]'))


def dims_old_numbers():
    dimmed = "return Number(getComputedStyle(document.querySelector('#whole')).opacity) < .6"
    assert not driver.execute_script(dimmed)
    os.kill(plan["gateway_pid"], signal.SIGSTOP)
    until("old numbers are dim", lambda: driver.execute_script(dimmed) and text("#fresher").endswith("s old"))
    until("and it is said why", lambda: find("#trouble").text == "The gateway does not answer.")
    picture("stale-light")
    os.kill(plan["gateway_pid"], signal.SIGCONT)
    until("live again", lambda: text("#fresher") == "live" and not driver.execute_script(dimmed))
    assert not find("#trouble").is_displayed()
