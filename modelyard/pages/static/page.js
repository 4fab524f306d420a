// A page of Modelyard: times as the reader has them; on a graph, nodes that are chosen without
// loading the page anew, a run that is followed while it goes on, and its size on the screen.
"use strict";

const POLL_MS = 1500;
const LOST_MS = 5000;

const zones = new Intl.DateTimeFormat("en", { timeZoneName: "short" });

// As the server writes it, in the reader's time zone.
function instant(at) {
  const two = (number) => String(number).padStart(2, "0");
  const date = [at.getFullYear(), two(at.getMonth() + 1), two(at.getDate())].join("-");
  const time = [at.getHours(), at.getMinutes(), at.getSeconds()].map(two).join(":");
  const zone = zones.formatToParts(at).find((part) => part.type === "timeZoneName").value;
  return `${date} ${time} ${zone}`;
}

function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (!Number.isNaN(at.getTime())) {
      time.title = time.textContent;
      time.textContent = instant(at);
    }
  }
}

// As the server writes it.
function duration(seconds) {
  if (seconds < 9.95) return `${Math.max(seconds, 0).toFixed(1)} s`;
  const whole = Math.round(seconds);
  for (const [unit, name, smaller, below] of [
    [86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"],
  ]) {
    if (whole >= unit) {
      const rest = Math.floor((whole % unit) / smaller);
      return `${Math.floor(whole / unit)} ${name}` + (rest ? ` ${rest} ${below}` : "");
    }
  }
  return `${whole} s`;
}

class Graph {
  constructor(main) {
    this.main = main;
    this.base = main.dataset.base;
    this.chosen = main.dataset.chosen;
    this.holder = main.querySelector("#graph");
    this.tools = main.querySelector(".tools");
    this.lost = main.querySelector("#lost");
    this.zoom = 1;
    this.asked = 0;
    this.timer = 0;
    main.addEventListener("click", (event) => this.clicked(event));
    window.addEventListener("popstate", () => this.choose(this.inAddress(), false));
    document.addEventListener("visibilitychange", () => this.poll(0));
    setInterval(() => this.tick(), 1000);
    this.tools.hidden = false;
    this.fitIfMuchTooWide();
    this.poll(POLL_MS);
  }

  get standing() {
    return this.main.querySelector("#standing");
  }

  get svg() {
    return this.holder.querySelector("svg");
  }

  inAddress() {
    return new URLSearchParams(location.search).get("node") || "";
  }

  address(path) {
    const asked = new URLSearchParams(location.search);
    asked.delete("node");
    if (path) asked.set("node", path);
    return asked.size ? `${this.base}?${asked}` : this.base;
  }

  clicked(event) {
    const button = event.target.closest("[data-zoom]");
    if (button) {
      this.size(button.dataset.zoom);
      return;
    }
    const link = event.target.closest("a[data-path]");
    const plain = !(event.ctrlKey || event.metaKey || event.shiftKey || event.button);
    if (link && plain) {
      event.preventDefault();
      this.choose(link.dataset.path, true);
    }
  }

  choose(path, noted) {
    this.chosen = path;
    if (noted) history.pushState(null, "", this.address(path));
    this.mark();
    this.load(false);
  }

  // At once, before the server has answered.
  mark() {
    for (const one of this.holder.querySelectorAll(".chosen")) one.classList.remove("chosen");
    if (!this.chosen) return;
    for (const link of this.holder.querySelectorAll("a[data-path]")) {
      if (link.dataset.path === this.chosen) link.parentNode.classList.add("chosen");
    }
  }

  poll(wait) {
    clearTimeout(this.timer);
    if (this.standing.dataset.going !== "yes" || document.hidden) return;
    this.timer = setTimeout(() => this.load(true), wait);
  }

  async load(onlyIfChanged) {
    const number = ++this.asked;
    const headers = onlyIfChanged ? { "If-None-Match": `"${this.standing.dataset.tag}"` } : {};
    let wait = POLL_MS;
    try {
      const answer = await fetch(this.address(this.chosen), { headers, cache: "no-store" });
      if (number !== this.asked) return; // a later one is on its way
      if (answer.ok) this.show(await answer.text(), number);
      else if (answer.status === 404) location.reload(); // it says why
      else if (answer.status !== 304) throw new Error(answer.status);
      this.lost.hidden = true;
    } catch {
      if (number !== this.asked) return;
      this.lost.hidden = false;
      wait = LOST_MS;
    }
    this.poll(wait);
  }

  show(text, number) {
    if (number !== this.asked) return;
    const page = new DOMParser().parseFromString(text, "text/html");
    const focused = document.activeElement?.closest?.("a[data-path]")?.dataset.path;
    const { scrollLeft, scrollTop } = this.holder;
    for (const id of ["standing", "graph", "details"]) {
      const now = this.main.querySelector(`#${id}`);
      const next = page.querySelector(`#${id}`);
      if (!next) return;
      if (id === "standing") Object.assign(now.dataset, next.dataset);
      localize(next);
      if (now.innerHTML !== next.innerHTML) now.replaceChildren(...next.childNodes);
    }
    this.scale();
    this.holder.scrollTo(scrollLeft, scrollTop);
    if (focused !== undefined) {
      for (const link of this.holder.querySelectorAll("a[data-path]")) {
        if (link.dataset.path === focused) link.focus({ preventScroll: true });
      }
    }
  }

  tick() {
    for (const told of this.holder.querySelectorAll("[data-began]")) {
      told.textContent = duration(Date.now() / 1000 - Number(told.dataset.began));
    }
  }

  fits() {
    const box = this.svg?.viewBox.baseVal;
    if (!box) return 1;
    const { clientWidth, clientHeight } = this.holder;
    return Math.min(1, clientWidth / box.width, Math.max(clientHeight, 300) / box.height);
  }

  fitIfMuchTooWide() {
    const box = this.svg?.viewBox.baseVal;
    if (!box) return;
    const wide = this.holder.clientWidth / box.width;
    if (wide < 1) this.zoom = Math.max(wide, 0.55); // smaller cannot be read
    this.scale();
  }

  size(how) {
    if (how === "one") this.zoom = 1;
    else if (how === "fit") this.zoom = this.fits();
    else this.zoom = Math.min(3, Math.max(0.05, this.zoom * (how === "in" ? 1.25 : 0.8)));
    this.scale();
  }

  scale() {
    const svg = this.svg;
    if (!svg) return;
    const { width, height } = svg.viewBox.baseVal;
    svg.setAttribute("width", (width * this.zoom).toFixed(1));
    svg.setAttribute("height", (height * this.zoom).toFixed(1));
    this.tools.querySelector("[data-zoom=one]").textContent = `${Math.round(this.zoom * 100)} %`;
  }
}

localize(document);
const main = document.querySelector("main.graphed");
if (main) new Graph(main);
