"""Dark, light and narrow; names for those who hear the page; nothing loaded from elsewhere."""

from browser import Keys, driver, emulate, find, keys, picture, plan, sent, tab_to, url


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
