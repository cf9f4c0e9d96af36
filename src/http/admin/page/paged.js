// What both tables have in common: a search that the filter begins and the next one ends, page after page, and again after
// a while. Whoever extends it has `search(signal)` and the `note` its faults go to.

const PAGE_ROWS = 50;
// Requests of one search: two million topics, or connections.
const STEPS_MAX = 200;
const AGAIN_MS = 4_000;
const ASKED_MS = 500;
// So long nothing more is typed before a search begins.
const TYPED_MS = 250;

class Paged {
  constructor(name, onView) {
    Object.assign(this, { onView, table: byId(`${name}-table`), note: byId(`${name}-note`), pages: [""], next: null, run: null, timer: 0, typed: 0 });
    byId(`${name}-filter`).addEventListener("submit", (event) => { event.preventDefault(); this.anew(); });
    byId(`${name}-on`).addEventListener("click", () => this.turn(() => { if (this.next) this.pages.push(this.next); }));
    byId(`${name}-back`).addEventListener("click", () => this.turn(() => this.pages.pop()));
  }

  // What is typed there is searched for in a moment; what is chosen, at once.
  typedIn(element) {
    element.addEventListener("input", () => {
      this.stop();
      this.typed = setTimeout(() => this.anew(), TYPED_MS);
    });
  }
  chosenIn(element) { element.addEventListener("change", () => this.anew()); }

  // The first page of what the filter says now.
  anew() {
    this.pages = [""];
    this.next = null;
    this.onView();
    this.load();
  }

  // A page of another search than the one that was typed would be none of its.
  turn(move) {
    if (this.typed) return this.anew();
    move();
    this.load();
  }

  // Ends the search that runs and every one that waits for its time.
  stop() {
    clearTimeout(this.timer);
    clearTimeout(this.typed);
    this.typed = 0;
    this.run?.abort();
    this.run = null;
  }

  async load() {
    this.stop();
    const run = this.run = new AbortController();
    const began = performance.now();
    try {
      await this.search(run.signal);
    } catch (error) {
      if (run.signal.aborted) return;
      setText(this.note, faultText(error));
      this.onFault?.(error);
    }
    // A search that took long is not repeated all the time.
    this.again(Math.max(AGAIN_MS, (performance.now() - began) * 5));
  }

  again(ms) { this.timer = setTimeout(() => (dialog.el.open || document.hidden ? this.again(ASKED_MS) : this.load()), ms); }
}
