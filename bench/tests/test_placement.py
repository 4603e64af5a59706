"""Conversations in order, what a perfect cache could have had, and the table of it."""

import collections
import unittest

from placement.real import __main__ as command
from placement.real import conversations, figures


class Order(unittest.TestCase):
    shape = conversations.Shape(systems=3, conversations=9, turns=4, open_at_once=4, system_words=50, user_words=10)

    def test_every_turn_is_asked_once_and_the_same_for_every_policy(self):
        order = conversations.order(self.shape, 1, 2)
        self.assertEqual(collections.Counter(order), {number: 4 for number in range(9)})
        self.assertEqual(order, conversations.order(self.shape, 1, 2))
        self.assertNotEqual(order, conversations.order(self.shape, 2, 2))

    def test_a_conversation_rests_while_others_are_open(self):
        order = conversations.order(self.shape, 1, 2)
        close = [place for place in range(len(order) - 2) if order[place] in order[place + 1 : place + 3]]
        # Only at the end, when the others are over.
        self.assertTrue(all(place > len(order) - 12 for place in close), close)

    def test_conversations_share_system_prompts_and_nothing_else(self):
        first, second, other = (conversations.Conversation(self.shape, number, 1) for number in (0, 3, 1))
        self.assertEqual(first.system, second.system)
        self.assertNotEqual(first.system, other.system)
        self.assertFalse(set(first.says) & set(second.says))
        self.assertEqual(len(first.system.split()), 50)


def request(tokens, began, ended, answer=()):
    """A request, as far as a cache is concerned."""
    return {"tokens": list(tokens), "after": [*tokens, *answer], "began": began, "ended": ended}


class Best(unittest.TestCase):
    def test_the_longest_beginning_of_what_had_ended(self):
        requests = [
            request([1, 2, 3], 0, 5, answer=[4]),
            request([1, 2, 9], 4, 6),
            request([1, 2, 3, 4, 7], 7, 8),
            request([1, 2, 3], 9, 10),
        ]
        # The second came before the first had ended; the last is there as a whole, but its last token is read.
        self.assertEqual(figures.best_possible(requests), [0, 0, 4, 2])

    def test_what_is_shared(self):
        self.assertEqual(figures.shared([1, 2, 3], [1, 2, 4]), 2)
        self.assertEqual(figures.shared([1, 2], [1, 2, 4]), 2)
        self.assertEqual(figures.shared([], [1]), 0)
        self.assertEqual(figures.shared(list(range(1000)), [*range(700), 0, *range(701, 900)]), 700)


def run(ttft, cached):
    """A round of one policy."""
    return {"requests": len(ttft), "ttft": ttft, "prompt_tokens": 1000, "cached_tokens": cached, "best_tokens": 800, "per_worker": {"a": 3, "b": 1}}


class Table(unittest.TestCase):
    def test_percentiles_lie_between_values(self):
        self.assertEqual(figures.percentile([4, 1, 3, 2], 0.5), 2.5)
        self.assertEqual([figures.percentile([7], part) for part in (0, 0.99)], [7, 7])

    def test_targets_are_met_or_missed(self):
        prefix = figures.together([run([0.1, 0.1, 0.2, 0.3], 600), run([0.1, 0.1, 0.1, 0.4], 700)])
        random = figures.together([run([1.0, 1.0, 1.0, 1.0], 300)])
        text = figures.document([("prefix", "tokenbus", prefix), ("random", "random", random)], "Three workers.")
        self.assertIn("| TTFT p50, random ÷ prefix | ≥ 3 | 10.0 | met |", text)
        self.assertIn("| cached tokens of the best possible | ≥ 90 % | 81.2 % | **missed** |", text)
        self.assertIn("| **tokenbus** | 0.10 / 0.33 / 0.39 | 1.0 | 65.0 | 81.2 | 88 | 1.50 |", text)

    def test_what_was_run_is_said_with_the_noise(self):
        names = "workers slots cache_ram conversations turns open systems clients"
        result = {"flags": dict.fromkeys(names.split(), 3), "machine": {"cpus": 2, "cpu": "x"}, "runs": []}
        for others in (0.01, 0.2):
            figure = {**run([1.0], 0), "machine": {"others": others, "stolen": 0.0}}
            result["runs"] = [{"round": 1, "policy": "random", "figures": figure}]
            noise = " Other processes took 20 % of the machine meanwhile." if others > 0.1 else ""
            self.assertTrue(command.setting(result).endswith(f"3 requests at a time; 1 round.{noise}"))

    def test_without_both_there_is_no_verdict(self):
        figure = figures.together([run([1.0], 0)])
        self.assertNotIn("target", figures.document([("random", "random", figure)], "x"))


if __name__ == "__main__":
    unittest.main()
