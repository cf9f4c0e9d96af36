// What the statistics were over the last minutes, and the curves of it.

const SAMPLES_MAX = 180;
// So many make a curve as wide as it can be.
const WIDE_SAMPLES = 30;

class Series {
  constructor() { this.samples = []; }

  add(stats) {
    const last = this.last();
    // Another process counts from zero.
    if (last && (last.stats.pid !== stats.pid || last.stats.started_seconds !== stats.started_seconds)) this.samples = [];
    this.samples.push({ at: stats.uptime_seconds, stats });
    if (this.samples.length > SAMPLES_MAX) this.samples.shift();
  }

  last() { return this.samples.at(-1); }

  // How fast something grows, a second, between the last two samples; `null` before there are two.
  rate(of) { return this.rates(of).at(-1) ?? null; }

  rates(of) {
    return this.samples.slice(1).map((sample, i) => {
      const before = this.samples[i];
      const seconds = sample.at - before.at;
      return seconds > 0 ? Math.max(0, (of(sample.stats) - of(before.stats)) / seconds) : 0;
    });
  }

  values(of) { return this.samples.map((sample) => of(sample.stats)); }

  // What was added over the last minute, or since the page looks, and how many seconds that are.
  lately(of) {
    const last = this.last();
    const first = this.samples.find((sample) => last.at - sample.at <= 61) ?? last;
    return { more: Math.max(0, of(last.stats) - of(first.stats)), seconds: Math.round(last.at - first.at) };
  }
}

// A curve without axes, for the look of it: the figure beside it says how much.
function drawCurve(svg, values) {
  const most = Math.max(...values, 0) || 1;
  const step = 120 / (Math.max(WIDE_SAMPLES, values.length) - 1);
  const from = 120 - step * (values.length - 1);
  const points = values.map((value, i) => `${(from + i * step).toFixed(1)} ${(30 - (value / most) * 27).toFixed(1)}`);
  const [area, line] = svg.children;
  line.setAttribute("d", points.length > 1 ? "M" + points.join("L") : "");
  area.setAttribute("d", points.length > 1 ? `M${from.toFixed(1)} 32L${points.join("L")}L120 32Z` : "");
}

function makeCurve() {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 120 32");
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("aria-hidden", "true");
  for (const name of ["area", "line"]) {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    svg.append(path);
  }
  return svg;
}
