// Puts the dashboard together. Messages are taken as they come and drawn no more often than the viewer wants.

const THINGS = [
  ["prices", "EUR-USD", "EUR/USD", "", 5], ["prices", "GBP-USD", "GBP/USD", "", 5], ["prices", "USD-JPY", "USD/JPY", "", 3],
  ["prices", "XAU-USD", "Gold", "$", 2], ["prices", "OIL", "Oil", "$", 2], ["prices", "WHEAT", "Wheat", "$", 4],
  ["sensors", "boiler", "Boiler", "°C", 1], ["sensors", "cold-store", "Cold store", "°C", 1], ["sensors", "wind", "Wind", "m/s", 1],
  ["sensors", "grid-hz", "Grid", "Hz", 3], ["sensors", "water-level", "Water level", "cm", 0], ["sensors", "co2", "CO₂", "ppm", 0],
];

const charts = new Map(THINGS.map(([kind, key, name, unit, digits]) => {
  const topic = `demo/${kind}/${key}`;
  return [topic, new Chart(kind, topic, name, unit, digits)];
}));

const byId = (id) => document.getElementById(id);
const feed = new Feed(charts, (tone, text) => {
  byId("state").dataset.tone = tone;
  byId("state").textContent = text;
});

let colors = null;
function readColors() {
  const style = getComputedStyle(document.documentElement);
  colors = { line: style.getPropertyValue("--teal"), area: style.getPropertyValue("--teal-wash"), gap: style.getPropertyValue("--red-wash") };
}
readColors();
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColors);

// Who wants nothing to move is not shown ten steps a second unasked.
if (matchMedia("(prefers-reduced-motion: reduce)").matches) byId("limit").value = "1";

let drawnAt = 0;
let draws = 0;
function frame(now) {
  if (now - drawnAt >= 1000 / Number(byId("limit").value) - 4) {
    drawnAt = now;
    draws += 1;
    const clock = Date.now();
    for (const chart of charts.values()) chart.draw(clock, colors);
  }
  requestAnimationFrame(frame);
}
requestAnimationFrame(frame);

let counted = 0;
setInterval(() => {
  byId("rate").textContent = feed.messages - counted;
  counted = feed.messages;
  byId("messages").textContent = new Intl.NumberFormat("en").format(feed.messages);
  let missed = 0;
  for (const chart of charts.values()) missed += chart.missed;
  byId("missed").textContent = missed;
  byId("missed").classList.toggle("some", missed > 0);
}, 1_000);

byId("unplug").addEventListener("click", () => feed.unplug(3_000));
