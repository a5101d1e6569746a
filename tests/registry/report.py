"""The figures and the problems that the parts find."""

import statistics
import typing

# If a replica misbehaves, many problems are alike.
PRINTED_PROBLEMS = 30


class Figure(typing.NamedTuple):
    name: str
    unit: str
    values: list
    worst: float
    limit: float | None


class Report:
    def __init__(self):
        self.figures, self.problems = [], []

    def add(self, name, unit, values, limit=None, worst=max):
        """Adds a figure. It is a problem if the worst value exceeds the limit."""
        if not values:
            self.problem(f"{name}: nothing was measured")
            return
        figure = Figure(name, unit, values, worst(values), limit)
        self.figures.append(figure)
        if limit is not None and figure.worst > limit:
            self.problem(f"{name}: {figure.worst:,.2f} {unit} exceeds the limit of {limit:,.2f}".replace("  ", " "))

    def problem(self, text):
        self.problems.append(text)

    def print(self):
        width = max((len(figure.name) for figure in self.figures), default=0)
        print(f"{'figure':<{width}}{'values':>8}{'median':>14}{'worst':>14}{'limit':>10}  unit")
        for figure in self.figures:
            median = statistics.median(figure.values)
            limit = "" if figure.limit is None else f"{figure.limit:,.2f}"
            print(
                f"{figure.name:<{width}}{len(figure.values):>8}{median:>14,.2f}{figure.worst:>14,.2f}{limit:>10}"
                f"  {figure.unit}".rstrip()
            )
        for problem in self.problems[:PRINTED_PROBLEMS]:
            print(f"FAILED   {problem}")
        if (more := len(self.problems) - PRINTED_PROBLEMS) > 0:
            print(f"FAILED   and {more} more problems")
