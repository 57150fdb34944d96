"use strict";
// Tables that sort, and a page that keeps its place while a study that runs writes it anew.
(() => {
  const keep = (name, value) => { try { sessionStorage.setItem(name, value); } catch { /* as file */ } };
  const kept = (name) => { try { return sessionStorage.getItem(name); } catch { return null; } };
  const here = location.pathname + " ";

  const plain = (text) => text.trim().replace(/[\u2009\u202f\u00a0]/g, "").replace(/\u2212/g, "-");
  const keyOf = (cell) => {
    if (cell.dataset.key !== undefined) return parseFloat(cell.dataset.key);
    const text = plain(cell.textContent);
    return /^[+-]?[\d.]+(e[+-]?\d+)?\s*%?$/i.test(text) ? parseFloat(text) : NaN;
  };
  const order = new Intl.Collator("en", { numeric: true });

  function sort(table, column, way) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => {
      const cell = row.cells[column];
      return { row, key: keyOf(cell), text: plain(cell.textContent), place: +row.dataset.place };
    });
    const numbers = rows.some((one) => !isNaN(one.key));
    rows.sort((one, other) => {
      if (numbers) {
        // What is no number stays at the end, whichever way.
        if (isNaN(one.key) || isNaN(other.key)) {
          return isNaN(one.key) - isNaN(other.key) || one.place - other.place;
        }
        return way * (one.key - other.key) || one.place - other.place;
      }
      return way * order.compare(one.text, other.text) || one.place - other.place;
    });
    body.append(...rows.map((one) => one.row));
    [...table.tHead.rows[0].cells].forEach((head, place) => {
      if (place === column) head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  }

  const counts = {};
  document.querySelectorAll("table.sorts").forEach((table) => {
    // By its kind: the next report may have other tables before it.
    const kind = [...table.classList].pop();
    counts[kind] = (counts[kind] || 0) + 1;
    if (table.tBodies[0].rows.length < 2) return;
    [...table.tBodies[0].rows].forEach((row, place) => { row.dataset.place = place; });
    const name = here + "table " + kind + " " + counts[kind];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        sort(table, column, way);
        keep(name, column + " " + way);
      });
    });
    const chosen = kept(name);
    if (chosen) sort(table, ...chosen.split(" ").map(Number));
  });

  // Of a study that runs, until its last report: that one comes anew too, and stays.
  const seconds = parseFloat(document.body.dataset.reload || "0");
  const marks = [...document.querySelectorAll("section[id], figure[id], table[class]")];
  const nameOf = (mark) => mark.id || "table." + [...mark.classList].pop();
  const before = kept(here + "place");
  if (before) {
    // The place is kept by what stands there: what is above may have grown, and figures grow late.
    const [name, top] = before.split(" ");
    const mark = marks.find((one) => nameOf(one) === name);
    const back = () => mark && scrollBy(0, mark.getBoundingClientRect().top - top);
    const growing = new ResizeObserver(back);
    const leave = () => growing.disconnect();
    for (const kind of ["wheel", "touchstart", "keydown", "mousedown"]) {
      addEventListener(kind, leave, { once: true, passive: true });
    }
    history.scrollRestoration = "manual";
    growing.observe(document.body);
    addEventListener("load", () => { back(); setTimeout(leave, 10000); });
    keep(here + "place", "");
  }
  if (seconds > 0) {
    addEventListener("pagehide", () => {
      // What begins in the upper half is what is read.
      const begun = (one) => one.getBoundingClientRect().top <= innerHeight / 2;
      const mark = scrollY > 0 && marks.filter(begun).pop();
      if (mark) keep(here + "place", nameOf(mark) + " " + mark.getBoundingClientRect().top);
    });
    let due = false;
    const again = () => { if (due && !document.hidden) location.reload(); };
    setTimeout(() => { due = true; again(); }, 1000 * seconds);
    document.addEventListener("visibilitychange", again);
  }
})();
