"""What is shown of a model's answer: Markdown while it streams, errors, and never more than text of what is no Markdown."""

from browser import (
    ActionChains, By, Keys, choose, driver, ended, every, find, keys, last, module, picture, say, tab_to, text, until,
)
from chat import EVIL


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
    assert last(".text") == "half an" and "oom" in last(".failure"), last(".failure")
    picture("error-light")


def renders_while_it_streams():
    tab_to("prompt")
    keys("Show me", Keys.ENTER)
    busy = '.turn:last-child .answer[aria-busy="true"]'
    until("a heading in bold", lambda: every(f"{busy} h2 strong"))
    until("a table under way", lambda: len(every(f"{busy} table tr")) == 2)
    heading = find(".turn:last-child h2")
    until("code under way", lambda: every(f"{busy} .code pre") and "print(1)" in last("pre"))
    assert text(".turn:last-child .code-head span") == "python"
    until("its end", lambda: every('.turn:last-child .answer[aria-busy="false"]'))
    # What was drawn stays where it is: a selection in it would stay too.
    assert heading.text == "Two things", heading.text
    assert [one.text for one in every(".turn:last-child td")] == ["a|b", "1"], "cells"
    assert [one.text for one in every(".turn:last-child ol > li")] == ["one\ninner", "two"], "items"
    assert find(".turn:last-child td:last-child").get_attribute("align") == "right"
    link = find(".turn:last-child .text a")
    assert link.get_attribute("href") == "https://example.org/later" and "noopener" in link.get_attribute("rel")
    assert find(".turn:last-child blockquote").text == "said"
    picture("markdown-light")


def runs_nothing_of_an_answer():
    say("Attack")
    answer = find(".turn:last-child .text")
    # A policy that stops it is the last wall, and must not be asked.
    for tag in ("img", "script", "iframe", "form", "input", "svg", "style", "object", "math", "base", "meta", "b"):
        assert not answer.find_elements(By.TAG_NAME, tag), tag
    names = """return [...document.querySelectorAll(".turn:last-child .text *")].flatMap((one) => one.getAttributeNames())"""
    assert set(driver.execute_script(names)) <= {"class", "href", "target", "rel", "type", "tabindex", "align"}, names
    links = [one.get_attribute("href") for one in answer.find_elements(By.TAG_NAME, "a")]
    assert links == ["https://example.org/p.png", "mailto:a@example.org"], links
    classes = {one.get_attribute("class") for one in answer.find_elements(By.CSS_SELECTOR, "code, p, div")}
    assert "failure" not in str(classes), classes
    assert EVIL in answer.text and "<script>" in answer.text and driver.title == "tokenbus"


def copies():
    driver.execute_cdp_cmd("Browser.grantPermissions", {"permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    read = "navigator.clipboard.readText().then(arguments[0], (error) => arguments[0](String(error)))"
    for which, wanted in (
        (".turn:nth-child(4) .code-head .copy", "<b>b</b>"),
        (".turn:nth-child(4) .facts .copy", f"{EVIL}\n\n```html\n<b>b</b>\n```\nend"),
        (".turn:first-child .question .copy", f"Hello\n{EVIL}"),
    ):
        find(which).send_keys(Keys.ENTER)
        until("it says so", lambda: text(which) == "Copied")
        assert driver.execute_async_script(read) == wanted, (which, driver.execute_async_script(read))
    # Where the browser lends no clipboard.
    driver.execute_script("navigator.clipboard.writeText = () => Promise.reject(new Error('insecure'))")
    find(".turn:first-child .question .copy").send_keys(Keys.ENTER)
    until("the old way", lambda: text("#announce") in ("Copied", "Not copied"))
    assert not every("body > textarea")


def draws_in_pieces_what_it_draws_at_once():
    body = r"""
        const text = "# One\n\nsome *text* and **more\nof** it [a][b]\n\n- x\n\n- y\n\n  y2\n\n      code\n\n" +
            "Set\n===\n\n|a|b|\n|-|-:|\n|`x`|2|\n\n> q\n> - r\n>\n> s\n\n```js\nlet a;\n\n```\n\n    old\n\n1. a\n   ```\n   in\n   ```\n2. b\n" +
            "\n<div>\nraw\n\n</div>\n\n***\n\n[b]: https://example.org\n";
        const shown = (pieces) => {
            const node = document.createElement("div");
            const markdown = new it.Markdown(node);
            let so_far = "";
            for (const piece of pieces) markdown.write((so_far += piece));
            const first = node.firstElementChild;
            markdown.write(so_far, true);
            return [node.innerHTML, first === node.firstElementChild];
        };
        const [whole] = shown([text]);
        for (const size of [1, 2, 3, 7, 31]) {
            const [html, same] = shown(text.match(new RegExp(`[^]{1,${size}}`, "g")));
            if (html !== whole || !same) return `pieces of ${size}: ${html}\n\nwhole: ${whole}`;
        }
        const deep = document.createElement("div");
        new it.Markdown(deep).write(">".repeat(50_000) + " deep");
        if (!deep.textContent.includes("deep")) return "deep nesting shows nothing";
        const block = "A paragraph with **bold** words and `code`.\n\n";
        const node = document.createElement("div");
        const markdown = new it.Markdown(node);
        const timed = (text) => { const begun = performance.now(); markdown.write(text); return performance.now() - begun; };
        let long = "";
        const steps = [];
        for (let at = 0; at < 2000; at += 1) steps.push(timed((long += block)));
        const mean = (list) => list.reduce((a, b) => a + b) / list.length;
        const [early, late] = [mean(steps.slice(100, 500)), mean(steps.slice(-400))];
        return late < 5 * early + 1 ? "same" : `a step costs ${early} ms early and ${late} ms late`;
    """
    found = module("markdown.js", body)
    assert found == "same", found
