"""Settings, what outlives a reload, editing, and API keys."""

from browser import (
    ActionChains, By, Keys, asked, choose, driver, ended, every, find, focused, keys, last, module, options, picture, plan,
    say, sent, tab_to, text, until,
)
from chat import ANSWER


def said():
    return [one.get_attribute("textContent") for one in every(".said")]


def sends_the_settings():
    tab_to("settings", back=True)
    keys(Keys.ENTER)
    assert find("#settings").get_attribute("aria-expanded") == "true"
    tab_to("system")
    keys("Be brief.")
    tab_to("temperature")
    keys("9")
    tab_to("max_tokens")
    keys("3")
    choose("sim")
    before = len(every(".turn"))
    keys("Count", Keys.ENTER)
    assert len(every(".turn")) == before and focused() == "temperature", "9 is no temperature"
    keys(Keys.BACKSPACE, "0.5")
    say("")
    [body] = asked()[-1:]
    assert (body["temperature"], body["max_tokens"]) == (0.5, 3), body
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}, body
    assert last(".text") == "t0 t1 t2" and last(".note") == "cut at its length limit", last(".facts")
    picture("settings-light")
    tab_to("max_tokens", back=True)
    keys(Keys.BACKSPACE, "40", Keys.ESCAPE)
    assert not find("#options").is_displayed() and focused() == "settings", focused()


def edits_and_asks_again():
    count = len(every(".turn"))
    again = find(".turn:last-child .again")
    again.send_keys(Keys.ENTER)
    until("another answer", lambda: len(asked()) and every('.turn:last-child .answer[aria-busy="false"]') and last(".text"))
    assert len(every(".turn")) == count and asked()[-1]["messages"] == asked()[-2]["messages"]
    assert [one for one in every(".again") if one.is_displayed()] == [find(".turn:last-child .again")]
    # The second question, of those before: what came after it is forgotten.
    find(".turn:nth-child(2) .edit").send_keys(Keys.ENTER)
    field = driver.switch_to.active_element
    assert field.get_property("value") == "Again", field.get_property("value")
    keys(Keys.ESCAPE)
    assert len(every(".turn")) == count and not every(".editor"), "nothing happened"
    find(".turn:nth-child(2) .edit").send_keys(Keys.ENTER)
    keys(" then", Keys.ENTER)
    until("the rest is gone", lambda: len(every(".turn")) == 2)
    ended(2)
    assert said()[1] == "Again then", said()
    wanted = [("system", "Be brief."), ("user", said()[0]), ("assistant", ANSWER + " "), ("user", "Again then")]
    assert [(one["role"], one["content"]) for one in asked()[-1]["messages"]] == wanted, asked()[-1]


def shown():
    return said(), [one.text for one in every(".text")]


def survives_a_reload():
    choose("odd")
    say("Table")
    before = shown()
    driver.refresh()
    until("models", lambda: options() == ["odd", "sim"])
    assert shown() == before, (shown(), before)
    assert find("#model").get_property("value") == "odd" and every(".turn:last-child table")
    values = [find(f"#{name}").get_property("value") for name in ("system", "temperature", "max_tokens")]
    assert values == ["Be brief.", "0.5", "40"], values
    # In the middle of an answer: what came is there.
    choose("sim")
    keys("Long", Keys.ENTER)
    until("some text", lambda: len(every(".turn")) == len(before[0]) + 1 and last(".text"))
    driver.refresh()
    until("models", lambda: options() == ["odd", "sim"])
    assert said()[-1] == "Long" and last(".text").startswith("t0") and "interrupted" in last(".note")
    find("#fresh").send_keys(Keys.ENTER)
    driver.refresh()
    until("models", lambda: options() == ["odd", "sim"])
    assert not every(".turn") and find("#model").get_property("value") == "sim"
    choose("odd")


def keeps_the_key():
    tab_to("settings", back=True)
    keys(Keys.ENTER)
    tab_to("key")
    keys("sk-secret", Keys.TAB)
    assert driver.execute_script("return sessionStorage.getItem('tokenbus-key')") == "sk-secret"
    elsewhere = driver.execute_script("return JSON.stringify(localStorage) + document.cookie")
    assert "sk-secret" not in elsewhere, elsewhere
    until("a look with the key", lambda: any(one["headers"].get("authorization") == "Bearer sk-secret" for one in sent()))
    keys(Keys.ESCAPE)


def keeps_no_more_than_fits():
    body = """
        const turn = (said) => ({ said, text: "x".repeat(400_000), thoughts: "", facts: [], note: "" });
        it.keepConversation(["a", "b", "c", "d"].map(turn));
        const kept = it.conversation().map((turn) => turn.said).join();
        localStorage.setItem("tokenbus-chat", '[{"said":1},7,{"said":"e","facts":[{}]}]');
        sessionStorage.setItem("tokenbus-chat", "no JSON");
        const odd = JSON.stringify(it.conversation());
        it.keepConversation([]);
        return [kept, odd, localStorage.getItem("tokenbus-chat")];
    """
    found = module("storage.js", body)
    assert found == ["c,d", '[{"said":"e","text":"","thoughts":"","facts":[],"note":""}]', None], found


def tells_a_wrong_key_from_none():
    driver.get(plan["keyed"] + "/")
    until("a key is asked for", lambda: text("#hint") == "This gateway asks for an API key. Enter one in the settings.")
    assert focused() == "key" and text("#trouble") == text("#hint"), focused()
    keys("tb-wrong", Keys.TAB)
    until("the key is wrong", lambda: "does not know the API key" in text("#hint"))
    until("at the cluster too", lambda: text("#trouble") == text("#hint"))
    find("#key").clear()
    find("#key").send_keys(plan["key"], Keys.TAB)
    until("models", lambda: options() == ["odd", "sim"])
    until("the page has it right", lambda: "chosen above" in text("#hint"))
