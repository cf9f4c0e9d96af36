// One card: the last minute of a topic as a curve, its newest value, and what of it is missing.

const SPAN_MS = 60_000;
const POINTS_MAX = 1_500;

class Chart {
  constructor(into, topic, name, unit, digits) {
    Object.assign(this, { topic, unit, digits, points: [], gaps: [], position: null, missed: 0, latest: null, changed: true });
    const make = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });
    this.el = { value: make("p", "value", "–"), move: make("p", "move"), missed: make("p", "missed"), canvas: make("canvas", "") };
    this.el.canvas.setAttribute("aria-hidden", "true");
    this.root = make("section", "card");
    const heading = make("h3", "", name);
    this.root.dataset.topic = topic;
    this.root.setAttribute("aria-label", name);
    this.root.append(heading, this.el.value, this.el.move, this.el.missed, this.el.canvas);
    document.getElementById(into).append(this.root);
  }

  // A message; what its offset says is missing is noted where it would have been.
  take(offset, value, at) {
    if (this.position && offset > this.position.offset + 1) this.miss(offset - this.position.offset - 1, at);
    if (this.position) this.position.offset = offset;
    this.points.push({ at, value });
    this.latest = value;
    this.trim(at);
    this.changed = true;
  }

  miss(count, at) {
    this.missed += count;
    this.gaps.push({ from: this.points.at(-1)?.at ?? at, to: at, count });
    this.changed = true;
  }

  trim(now) {
    while (this.points.length > POINTS_MAX || (this.points.length > 2 && this.points[1].at < now - SPAN_MS)) this.points.shift();
    while (this.gaps.length > 0 && this.gaps[0].to < now - SPAN_MS) this.gaps.shift();
  }

  // Draws what there is now. Its time goes on while nothing comes, so that a still topic is seen to be still.
  draw(now, colors) {
    const { canvas } = this.el;
    const scale = devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (canvas.width !== Math.round(width * scale)) canvas.width = Math.round(width * scale);
    if (canvas.height !== Math.round(height * scale)) canvas.height = Math.round(height * scale);
    const paper = canvas.getContext("2d");
    paper.setTransform(scale, 0, 0, scale, 0, 0);
    paper.clearRect(0, 0, width, height);
    const x = (at) => (width - 6) * (1 - (now - at) / SPAN_MS);
    paper.fillStyle = colors.gap;
    for (const { from, to } of this.gaps) paper.fillRect(x(from), 0, Math.max(2, x(to) - x(from)), height);
    if (this.points.length > 1) this.line(paper, x, height, colors);
    this.write();
  }

  line(paper, x, height, colors) {
    const values = this.points.map((point) => point.value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const y = (value) => (high === low ? height / 2 : height - 5 - ((value - low) / (high - low)) * (height - 12));
    // A piece for what came without a gap.
    const pieces = [[]];
    for (const point of this.points) {
      if (this.gaps.some((gap) => gap.from === pieces.at(-1).at(-1)?.at && gap.to <= point.at)) pieces.push([]);
      pieces.at(-1).push(point);
    }
    Object.assign(paper, { lineWidth: 1.8, lineJoin: "round", strokeStyle: colors.line, fillStyle: colors.area });
    for (const piece of pieces) {
      const path = new Path2D();
      piece.forEach(({ at, value }, i) => (i === 0 ? path.moveTo(x(at), y(value)) : path.lineTo(x(at), y(value))));
      const area = new Path2D(path);
      area.lineTo(x(piece.at(-1).at), height);
      area.lineTo(x(piece[0].at), height);
      paper.fill(area);
      paper.stroke(path);
    }
    const last = this.points.at(-1);
    paper.beginPath();
    paper.arc(x(last.at), y(last.value), 3, 0, 7);
    paper.fillStyle = colors.line;
    paper.fill();
  }

  write() {
    if (!this.changed) return;
    this.changed = false;
    if (this.latest !== null) this.el.value.textContent = this.latest.toFixed(this.digits) + (this.unit ? ` ${this.unit}` : "");
    const first = this.points[0]?.value;
    if (first) {
      const percent = ((this.latest - first) / Math.abs(first)) * 100;
      this.el.move.textContent = `${percent < 0 ? "▼" : "▲"} ${Math.abs(percent).toFixed(2)} %`;
      this.el.move.dataset.way = percent < 0 ? "down" : "up";
    }
    this.el.missed.textContent = this.missed > 0 ? `${this.missed} missed` : "";
  }
}
