// Tables sort by the column whose heading is pressed: numbers by value, the rest as text.
for (const table of document.querySelectorAll("table.sortable")) {
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => head.querySelector("button").addEventListener("click", () => {
    const up = head.getAttribute("aria-sort") !== "ascending";
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const value = row => row.cells[column].dataset.value ?? row.cells[column].textContent;
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      const order = isNaN(x) || isNaN(y) ? String(x).localeCompare(String(y)) : x - y;
      return up ? order : -order;
    });
    table.tBodies[0].append(...rows);
  }));
}

// Figures: the value of the point under the pointer, and buttons that hide panels and lines.
const tip = document.createElement("div");
tip.className = "tip";
tip.setAttribute("role", "status");
document.body.append(tip);
const NEAR = 24;  // pixels
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg");
  const series = [...svg.querySelectorAll(".series")];
  const panels = [...svg.querySelectorAll(".panel")].filter(panel => panel.dataset.name);
  const hidden = new Set();
  const toggles = document.createElement("div");
  toggles.className = "toggles";
  const add = (elements, what) => {
    const names = [...new Set(elements.map(element => element.dataset.name))];
    if (names.length < 2) return;
    for (const name of names) {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = what(name);
      button.setAttribute("aria-pressed", "true");
      button.addEventListener("click", () => {
        const shown = button.getAttribute("aria-pressed") !== "true";
        button.setAttribute("aria-pressed", shown);
        for (const element of elements.filter(element => element.dataset.name === name)) {
          element.style.display = shown ? "" : "none";
          shown ? hidden.delete(element) : hidden.add(element);
        }
      });
      toggles.append(button);
    }
  };
  add(panels, name => name);
  add(series, name => `${series[0].dataset.kind} ${name}`.trim());
  if (toggles.childElementCount) figure.prepend(toggles);
  const points = series.filter(line => line.dataset.points).flatMap(line => {
    const panel = line.closest(".panel");
    const box = panel.querySelector(".area").getBBox();
    return JSON.parse(line.dataset.points).map(([x, y, said]) => ({
      line, panel, x: box.x + x * box.width, y: box.y + (1 - y) * box.height,
      said: [panel.dataset.name, `${line.dataset.kind} ${line.dataset.name}`.trim(), said]
        .filter(Boolean).join(": "),
    }));
  });
  svg.addEventListener("pointermove", event => {
    const matrix = svg.getScreenCTM();
    let nearest = null, least = NEAR;
    for (const point of points) {
      if (hidden.has(point.line) || hidden.has(point.panel)) continue;
      const x = matrix.a * point.x + matrix.e, y = matrix.d * point.y + matrix.f;
      const distance = Math.hypot(x - event.clientX, y - event.clientY);
      if (distance < least) [nearest, least] = [{x, y, said: point.said}, distance];
    }
    tip.textContent = nearest ? nearest.said : "";
    if (!nearest) return;
    const left = Math.min(nearest.x + 12, innerWidth - tip.offsetWidth - 8);
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${nearest.y + 12}px`;
  });
  svg.addEventListener("pointerleave", () => { tip.textContent = ""; });
}
