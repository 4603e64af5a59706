"""Loading the page, chatting, stopping."""

from browser import (
    ActionChains, Keys, choose, driver, ended, every, find, focused, in_flight, keys, last, options, picture, sim, tab_to,
    text, until, url,
)

ANSWER = " ".join(f"t{n}" for n in range(16))
EVIL = "<img src=x onerror=\"document.title='bad'\">"

# Collects the lengths that an answer has on its way, however busy the machine of the test is.
WATCH = """window.lengths = new Set();
    const look = () => window.lengths.add(document.querySelector(".answer .text")?.textContent.trim().length ?? 0);
    const all = { subtree: true, childList: true, characterData: true };
    new MutationObserver(look).observe(document.getElementById("log"), all);"""


def loads():
    driver.get(url + "/")
    until("models", lambda: options() == ["odd", "sim"])
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
    driver.execute_script(WATCH)
    keys(Keys.ENTER)

    until("a slot in use", lambda: text(f'[data-worker="{sim}"] .use') == "1 of 4 slots")
    assert not find("#send").is_displayed() and find("#stop").is_displayed()
    picture("streaming-light")
    ended(1)
    lengths = driver.execute_script("return [...window.lengths]")
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
