"""Figures with the interval they are sure to: lines through points, means, ratios. Measures nothing.

A figure is `{"value", "sure"}`: `sure` is half of the 95 % confidence interval. A ratio's interval is not even to both
sides, so it is `{"value", "low", "high"}`. None is unknown, which is not 0.
"""

# Student's t, two-sided 95 %, by degrees of freedom; between two of them the smaller one's is taken.
T95 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262, 10: 2.228, 11: 2.201,
       12: 2.179, 13: 2.160, 14: 2.145, 15: 2.131, 16: 2.120, 17: 2.110, 18: 2.101, 19: 2.093, 20: 2.086, 25: 2.060,
       30: 2.042, 40: 2.021, 60: 2.000, 120: 1.980}


def t95(freedom):
    return T95[max(known for known in T95 if known <= freedom)]


def figure(value, sure=None):
    return {"value": value, "sure": sure}


UNKNOWN = figure(None)


def fit(points):
    """Slope of a straight line through (connections, bytes) as a figure."""
    n = len(points)
    mean_x = sum(x for x, _ in points) / n
    mean_y = sum(y for _, y in points) / n
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    if spread == 0:
        return UNKNOWN
    slope = sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
    if n < 3:
        return figure(slope)
    rest = sum((y - mean_y - slope * (x - mean_x)) ** 2 for x, y in points)
    return figure(slope, t95(n - 2) * (rest / (n - 2) / spread) ** 0.5)


def mean(values):
    """The mean as a figure."""
    n = len(values)
    if n == 0:
        return UNKNOWN
    middle = sum(values) / n
    if n < 2:
        return figure(middle)
    deviation = (sum((value - middle) ** 2 for value in values) / (n - 1)) ** 0.5
    return figure(middle, t95(n - 1) * deviation / n ** 0.5)


def difference(one, other):
    """`one` - `other`, both measured independently."""
    if one["value"] is None or other["value"] is None:
        return UNKNOWN
    sure = ((one["sure"] or 0) ** 2 + (other["sure"] or 0) ** 2) ** 0.5
    return figure(one["value"] - other["value"], sure)


def scaled(one, factor):
    if one["value"] is None:
        return UNKNOWN
    return figure(one["value"] * factor, None if one["sure"] is None else one["sure"] * factor)


def ratio(one, other):
    """`one` / `other` with its interval (Fieller 1954), both measured independently. If `other` may be 0, there is
    no interval that ends."""
    a, b = one["value"], other["value"]
    if a is None or not b:
        return {"value": None, "low": None, "high": None}
    a_sure, b_sure = one["sure"] or 0, other["sure"] or 0
    below = b * b - b_sure * b_sure
    if below <= 0:
        return {"value": a / b, "low": None, "high": None}
    # Never negative but by rounding: it is (a b_sure)² + (b a_sure)² - (a_sure b_sure)².
    root = max(0.0, (a * b) ** 2 - (a * a - a_sure * a_sure) * below) ** 0.5
    return {"value": a / b, "low": (a * b - root) / below, "high": (a * b + root) / below}
