"""From runs to tables, from counts to verdicts."""

import json
import os
import pathlib
import sys
import tempfile
import unittest

from harness import instructions, table
from harness.__main__ import merge
from harness.processes import Failed, Processes
from harness.systems import milliseconds


def run(system, cpu, failed=0, scenario="a", number=1):
    """One measurement, as far as a table needs it."""
    figures = {"cpu_us": cpu, "failed": failed, "tokens_per_second": 1000.0, "ttft_p50_us": 1500, "itl_p99_us": None}
    return {"round": number, "scenario": scenario, "system": system, "figures": figures}


class Tables(unittest.TestCase):
    def test_medians_and_ratios_to_nginx(self):
        measured = [("nginx", 10.0, 1), ("nginx", 30.0, 2), ("nginx", 20.0, 3), ("smg", 8.0, 1), ("smg", 12.0, 2)]
        runs = [run(system, cpu, number=number) for system, cpu, number in measured]
        text = table.table(runs, "a")
        self.assertIn("| nginx | 20.0 | 1.00 | 1,000 | 1.50 | – | 0 |", text)
        # Of each round: 0.8 and 0.4.
        self.assertIn("| smg | 10.0 | 0.60 |", text)

    def test_the_floor_is_a_row_and_a_column(self):
        text = table.table([run("floor", 8.0), run("tokenbus-sim-h2", 4.0), run("nginx", 16.0)], "a")
        self.assertIn("| CPU µs per token | × floor | × nginx |", text)
        self.assertIn("HTTP/2 | 4.0 | 0.50 | 0.25 |", text)

    def test_without_nginx_there_is_no_ratio(self):
        self.assertNotIn("× nginx", table.table([run("smg", 10.0)], "a"))

    def test_memory_is_told_of_each_process(self):
        samples = [{"requests": n, "resident": {"gateway": n * 2**20}} for n in (10, 20)]
        figures = {"growth": 1.0, "failed": 0, "samples": samples}
        text = table.table([{"round": 1, "scenario": "f", "system": "tokenbus-sim", "figures": figures}], "f")
        self.assertIn("after 10 and after 20 requests: gateway 10.0 → 20.0.", text)

    def test_a_failure_of_any_round_shows(self):
        runs = [run("smg", 10.0), run("smg", 10.0, failed=3), run("smg", 10.0)]
        self.assertEqual(table.summarise(runs, "a")["smg"]["failed"], 3)

    def test_the_document_says_what_was_not_measured_and_how_to_repeat_it(self):
        machine = {"cpus": 2, "cpu": "x", "system": "Linux"}
        result = {"machine": machine, "versions": {"nginx": "1"}, "runs": [run("nginx", 9.0)]}
        text = table.document({**result, "skipped": {"dynamo": "no wheel"}})
        self.assertIn("- dynamo: no wheel", text)
        self.assertIn("`bench/peers.sh --write-readme`", text)
        self.assertNotIn("### Saturation", text)

    def test_targets_are_met_or_missed_or_not_there(self):
        rows = table.targets([run("tokenbus-sim", 12.4), run("tokenbus-sim-h2", 4.0), run("floor", 10.0)])
        self.assertIn("| ≤ 1.25 | 1.24 | met |", rows[2])
        self.assertIn("| ≤ 0.35 | 0.40 | **missed** |", rows[3])
        self.assertEqual(len(rows), 5)
        self.assertEqual(table.targets([run("smg", 1.0)]), [])

    def test_the_summary_has_a_row_for_each_system_that_was_measured(self):
        machine = {"cpus": 2, "cpu": "x", "system": "Linux"}
        runs = [run("nginx", 10.0), run("tokenbus-sim", 5.0), run("nginx", 40.0, scenario="b")]
        text = table.summary({"machine": machine, "versions": {}, "skipped": {}, "runs": runs})
        self.assertIn("| **tokenbus**, engine in the worker | 5.0 | 0.50 | – | – | – | – |", text)
        self.assertIn("| nginx | 10.0 | 1.00 | 40 | 1.00 |", text)

    def test_an_earlier_result_keeps_what_was_not_measured_again(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "peers.json")
            earlier = {"versions": {"smg": "1"}, "skipped": {}, "runs": [run("smg", 1.0), run("nginx", 2.0)]}
            pathlib.Path(path).write_text(json.dumps(earlier), encoding="utf-8")
            merged = merge({"versions": {"nginx": "2"}, "skipped": {}, "runs": [run("nginx", 3.0)]}, path)
            self.assertEqual([one["figures"]["cpu_us"] for one in merged["runs"]], [1.0, 3.0])
            self.assertEqual(merged["versions"], {"smg": "1", "nginx": "2"})

    def test_only_what_is_between_the_comments_is_replaced(self):
        text = "a\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nb\n"
        self.assertEqual(table.splice(text, "new\n", "bench"), text.replace("old", "new"))
        with self.assertRaises(ValueError):
            table.splice("a", "b", "bench")


class Verdicts(unittest.TestCase):
    def test_growth_over_the_tolerance_is_found(self):
        before = {"same": 100.0, "more": 100.0, "less": 100.0, "gone": 1.0}
        now = {"same": 104.0, "more": 110.0, "less": 50.0, "new": 5.0}
        lines, worse = instructions.judge(now, before, 0.05)
        self.assertEqual(worse, ["more", "new"])
        self.assertEqual(len(lines), 5)

    def test_what_is_written_is_read(self):
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "figures.txt")
            instructions.write(path, "rustc 1, x86_64", {"a": 1.5, "b": 200.0})
            self.assertEqual(instructions.read(path), ("rustc 1, x86_64", {"a": 1.5, "b": 200.0}))


class Children(unittest.TestCase):
    def test_all_that_was_started_is_gone_grandchildren_too(self):
        with tempfile.TemporaryDirectory() as folder:
            processes = Processes(folder)
            child = "import subprocess, sys; print(subprocess.Popen(['sleep', '600']).pid, flush=True); sys.stdin.read()"
            processes.start("parent", [sys.executable, "-c", child + "; import time; time.sleep(600)"])
            log = os.path.join(folder, "parent.log")
            said = lambda: pathlib.Path(log).read_text(encoding="utf-8").strip()
            grandchild = int(processes.await_true("a grandchild", said))
            processes.stop()
            processes.await_true("its end", lambda: not alive(grandchild), 5)

    def test_a_child_that_ends_is_reported_with_its_last_words(self):
        with tempfile.TemporaryDirectory() as folder:
            processes = Processes(folder)
            processes.start("brief", [sys.executable, "-c", "print('out of luck'); raise SystemExit(7)"])
            with self.assertRaisesRegex(Failed, "brief ended with status 7.*out of luck"):
                processes.await_true("never", lambda: False, 20)
            processes.stop()


class Durations(unittest.TestCase):
    def test_are_read_as_the_flags_write_them(self):
        self.assertEqual([milliseconds(text) for text in ("0", "20ms", "1s")], [0, 20, 1000])
        with self.assertRaises(Failed):
            milliseconds("1h")


def alive(pid):
    """Whether the process runs; one that has ended and was not collected does not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


if __name__ == "__main__":
    unittest.main()
