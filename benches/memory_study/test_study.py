"""The study's own arithmetic, order and judgement, without a server: python3 -m unittest discover benches/memory_study"""

import random
import unittest
import xml.etree.ElementTree
from pathlib import Path
from tempfile import TemporaryDirectory

import figures
import page
import plot
import sampling
from figures import figure
from measure import Failed
from sampling import Row


class Figures(unittest.TestCase):
    def test_a_line_and_its_interval(self):
        exact = figures.fit([(10, 1_610), (20, 2_210), (30, 2_810)])
        self.assertAlmostEqual(exact["value"], 60)
        self.assertAlmostEqual(exact["sure"], 0)
        self.assertIsNone(figures.fit([(10, 1), (20, 2)])["sure"])
        self.assertIsNone(figures.fit([(10, 1), (10, 2)])["value"])

    def test_intervals_hold_as_often_as_they_say(self):
        draw, slopes, ratios, runs = random.Random(1), 0, 0, 2_000
        for _ in range(runs):
            one = figures.fit([(x, 5 * x + draw.gauss(0, 3)) for x in (1, 2, 3) * 5])
            other = figures.fit([(x, 2 * x + draw.gauss(0, 1)) for x in (1, 2, 3) * 5])
            slopes += abs(one["value"] - 5) <= one["sure"]
            ratio = figures.ratio(one, other)
            ratios += ratio["low"] <= 2.5 <= ratio["high"]
        self.assertAlmostEqual(slopes / runs, 0.95, delta=0.015)
        self.assertAlmostEqual(ratios / runs, 0.95, delta=0.015)

    def test_a_ratio_to_what_may_be_nothing_has_no_interval(self):
        self.assertIsNone(figures.ratio(figure(10, 1), figure(2, 3))["low"])
        self.assertIsNone(figures.ratio(figure(None), figure(2, 1))["value"])


class Sampling(unittest.TestCase):
    ROWS = [Row("a", None, [1, 2, 3]), Row("b", None, [1, 2, 3], times=2)]

    def test_the_order_is_drawn_and_the_same_again(self):
        plan = [(one.row, one.connections, one.launch) for one in sampling.planned(self.ROWS, 5)]
        self.assertEqual(plan, [(one.row, one.connections, one.launch) for one in sampling.planned(self.ROWS, 5)])
        self.assertEqual(len(set(plan)), 3 * 5 + 3 * 10)
        self.assertNotEqual(plan, sorted(plan))
        self.assertNotEqual(plan, [(one.row, one.connections, one.launch) for one in sampling.planned(self.ROWS, 5, 7)])

    def test_what_fails_is_repeated_and_told(self):
        with TemporaryDirectory() as folder:
            def sometimes(connections, seed):
                mark = Path(folder) / str(seed)
                if not mark.exists():
                    mark.touch()
                    raise Failed("the first time")
                return {"open": 100 * connections}

            def never(connections, seed):
                raise SystemExit("always")

            rows = [Row("sometimes", sometimes, [1, 2]), Row("never", never, [1])]
            plan = sampling.planned(rows, 2)
            with sampling.Workers(rows, 2) as workers:
                done = list(workers.each(plan, 0))
            samples = sampling.Samples(plan)
            self.assertEqual(len(done), 6)
            self.assertEqual(samples.points("never", "open"), [])
            self.assertEqual(sorted(samples.points("sometimes", "open")), [(1, 100), (1, 100), (2, 200), (2, 200)])
            about = samples.about()
            self.assertEqual((about["again"], about["missing"], about["planned"]), (4 + 2 * 2, 2, 6))
            samples.write(Path(folder) / "raw.csv")
            lines = (Path(folder) / "raw.csv").read_text().splitlines()
            self.assertEqual(len(lines), 7)
            self.assertTrue(lines[0].endswith(",tries,open_bytes"))

    def test_dear_launches_wait_for_each_other(self):
        dear = sampling.BYTES_AT_ONCE_MAX
        workers = sampling.Workers([Row("dear", None, [1], dear_bytes=dear), Row("cheap", None, [1])], 2)
        one, two, cheap = sampling.Launch("dear", 1, 1), sampling.Launch("dear", 1, 2), sampling.Launch("cheap", 1, 1)
        self.assertIs(workers.next([cheap, two], []), two)
        self.assertIs(workers.next([cheap, two], [one]), cheap)
        self.assertIsNone(workers.next([two], [one]))


def run(value, sure, kernel="6.1"):
    about = {"kernel": kernel}
    return {"tables": {"states": {"idle": {"user": figure(value, sure)}},
                       "kernel": {"`TCP`": {"server_objects": figure(value / 60, sure / 60)}}},
            "about": {"states": about, "kernel": about}}


class Judging(unittest.TestCase):
    def compared(self, old, new):
        return page.Comparison(old, new, page.gated(old, new))

    def test_the_same_again_agrees(self):
        compared = self.compared(run(60, 1), run(63, 2))
        self.assertFalse(compared.failed)
        self.assertIn("2 of 2 figures agree", compared.text())

    def test_more_than_the_tolerance_fails(self):
        compared = self.compared(run(60, 1), run(75, 2))
        self.assertTrue(compared.failed)
        self.assertIn("idle: bytes a connection: 60.0 ± 1.0 then, 75.0 ± 2.0 now: differs", compared.text())
        self.assertTrue(self.compared(run(75, 1), run(60, 2)).failed)

    def test_what_could_not_differ_does_not_agree(self):
        compared = self.compared(run(60, 1), run(61.4, 90.1))
        self.assertTrue(compared.failed)
        self.assertIn("too unsure to tell", compared.text())
        self.assertIn("0 of 2", compared.text())

    def test_how_unsure_the_kernels_figures_are_is_no_failure(self):
        old, new = run(60, 1), run(60, 1)
        new["tables"]["kernel"]["`TCP`"]["server_objects"] = figure(1.0, 0.45)
        compared = self.compared(old, new)
        self.assertFalse(compared.failed)
        self.assertIn("1 of 2 figures agree", compared.text())

    def test_another_kernel_may_have_other_figures(self):
        old, new = run(60, 1), run(60, 1, kernel="6.2")
        new["tables"]["kernel"]["`TCP`"]["server_objects"] = figure(2.0, 0.0)
        compared = self.compared(old, new)
        self.assertFalse(compared.failed)
        self.assertIn("1 of 2 figures agree", compared.text())
        new["about"]["kernel"]["kernel"] = new["about"]["states"]["kernel"] = "6.1"
        self.assertTrue(self.compared(old, new).failed)

    def test_what_other_programs_have_of_the_kernel_fails_nothing(self):
        old, new = run(60, 1), run(60, 1)
        old["tables"]["kernel"]["sum"] = {"server": figure(4_109.0)}
        new["tables"]["kernel"]["sum"] = {"server": figure(4_806.0, 20.0)}
        new["tables"]["kernel"]["`kmalloc-256`"] = new["tables"]["kernel"]["`filp`"] = {"server_objects": figure(1.0, 0.0)}
        compared = self.compared(old, new)
        self.assertFalse(compared.failed)
        self.assertIn("2 of 5 figures agree", compared.text())
        new["tables"]["states"]["more"] = {"user": figure(1.0, 0.0)}
        self.assertTrue(self.compared(old, new).failed)

    def test_a_figure_that_went_missing_does_not_agree(self):
        self.assertTrue(self.compared(run(60, 1), {**run(60, 1), "tables": {"states": {"idle": {"user": figure(None)}}}}).failed)

    def test_full_runs_only_tell(self):
        self.assertFalse(page.Comparison(run(60, 1), run(90, 1)).failed)


class Showing(unittest.TestCase):
    def test_the_plot_has_every_server(self):
        server = lambda value, sure, kept: {"user": figure(value, sure), "kept": figure(kept, 1)}
        known = {"tables": {"others": {"Fantail": server(61, 3, 0.0), "A & B": server(9_000, 20_000, 9_500)},
                            "tls": {"none": {"user": figure(None), "kept": figure(None)}}}}
        drawing = plot.svg(known)
        text = " ".join(xml.etree.ElementTree.fromstring(drawing).itertext())
        self.assertIn("A & B", text)
        self.assertIn("61 B", text)
        self.assertNotIn("nan", drawing)
        self.assertIn("prefers-color-scheme:dark", drawing)

    def test_figures_say_no_more_than_is_known(self):
        column = page.Column("user", "bytes")
        self.assertEqual(column.text(figure(60.04, 1.26)), "60.0 ± 1.3")
        self.assertEqual(column.text(figure(12_345.6, 99.9)), "12,346 ± 100")
        self.assertEqual(column.text(figure(-0.01, 0.0)), "0.0 ± 0.0")
        self.assertEqual(column.text({"value": 2.5, "low": 2.0, "high": 3.25}), "2.5 (2.0 .. 3.2)")
        self.assertEqual(column.text(figure(None)), "n/a")


if __name__ == "__main__":
    unittest.main()
