// The tail: one feather for each connection of a card.

const SVG = "http://www.w3.org/2000/svg";
const FEATHERS_MIN = 7;

// A tail feather pointing at `degrees`, as wide as its share of the fan allows.
function feather(degrees, spacing, length) {
  const path = document.createElementNS(SVG, "path");
  const half = Math.max(1.2, Math.min(length * 0.17, length * Math.tan((spacing * Math.PI) / 360)));
  path.setAttribute("d", `M0 0C${-half * 0.3} ${-length * 0.4} ${-half} ${-length * 0.6} ${-half} ${-length * 0.84}` +
    `Q${-half} ${-length} 0 ${-length}Q${half} ${-length} ${half} ${-length * 0.84}` +
    `C${half} ${-length * 0.6} ${half * 0.3} ${-length * 0.4} 0 0Z`);
  path.setAttribute("transform", `rotate(${degrees})`);
  return path;
}

// Draws the fan anew, from the middle outwards while there are fewer connections than a full tail has feathers.
function drawFan(svg, seats) {
  const count = Math.max(FEATHERS_MIN, seats.length);
  const spacing = 150 / (count - 1);
  const angles = Array.from({ length: count }, (_, i) => i * spacing - 75);
  const middleOut = angles.map((_, i) => i).sort((x, y) => Math.abs(angles[x]) - Math.abs(angles[y]));
  const paths = angles.map((degrees) => feather(degrees, spacing, 82));
  for (const path of paths) path.dataset.state = "none";
  seats.forEach((seat, i) => {
    seat.feather = paths[middleOut[i]];
    seat.feather.dataset.state = seat.state;
  });
  const root = document.createElementNS(SVG, "circle");
  root.setAttribute("r", "5");
  svg.replaceChildren(...paths, root);
}

function flash(path) {
  if (!path || matchMedia("(prefers-reduced-motion: reduce)").matches) return;
  for (const running of path.getAnimations()) running.cancel();
  path.animate([{ fill: "var(--blue)" }, { fill: "var(--teal)" }], { duration: 700, easing: "ease-out" });
}

function drawLogo(svg) {
  for (const degrees of [-66, -44, -22, 0, 22, 44, 66]) {
    const path = feather(degrees, 22, 30);
    path.setAttribute("transform", `translate(24 32) rotate(${degrees})`);
    svg.append(path);
  }
}
