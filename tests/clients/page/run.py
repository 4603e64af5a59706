"""The built-in page in Chromium, with the keyboard alone.

Argument: the plan, as JSON: `browser` and `driver`, the programs; `url` of a gateway; `sim` and `odd`, the ids of the worker
with the simulated engine, whose model is `sim`, and of the one whose model is `odd`; `gateway_pid` and `odd_pid`;
`keyed`, the URL of a gateway that asks for keys, and `key`. PAGE_PICTURES is a folder for pictures, where they are wanted.
"""

import answers
import chat
import cluster
import keep
import shape
from browser import driver

TESTS = [
    chat.loads,
    chat.chats,
    chat.stops,
    answers.shows_text_as_text,
    answers.tells_errors,
    answers.renders_while_it_streams,
    answers.runs_nothing_of_an_answer,
    answers.copies,
    answers.draws_in_pieces_what_it_draws_at_once,
    cluster.lives,
    keep.sends_the_settings,
    keep.edits_and_asks_again,
    keep.survives_a_reload,
    keep.keeps_the_key,
    keep.keeps_no_more_than_fits,
    cluster.shows_ten_minutes,
    shape.adapts,
    shape.names_everything,
    cluster.says_that_a_model_is_gone,
    cluster.dims_old_numbers,
    shape.stays_at_home,
    keep.tells_a_wrong_key_from_none,
]

try:
    for test in TESTS:
        test()
        print("passed:", test.__name__, flush=True)
finally:
    driver.quit()
