"use strict";
/* Tables that sort and filter, and charts that show their values; data come from #charts. */

/* Names sort by the numbers in them: lr0.01 before lr0.1 before lr0.2. */
function compareNames(a, b) {
  const [left, right] = [a, b].map((text) => text.split(/(\d+(?:\.\d+)?)/));
  for (let i = 0; i < Math.min(left.length, right.length); i++) {
    const order = i % 2 ? left[i] - right[i] : left[i].localeCompare(right[i]);
    if (order) return Math.sign(order);
  }
  return Math.sign(left.length - right.length);
}

function sortTable(table, column, descending) {
  const body = table.tBodies[0];
  const key = (row) => {
    const cell = row.cells[column];
    return cell.dataset.value !== undefined ? Number(cell.dataset.value) : cell.textContent;
  };
  const compare = (a, b) => {
    if (a === "" || b === "") return a === b ? 0 : a === "" ? 2 : -2; // empty cells stay last
    if (typeof a === "number" && typeof b === "number") return Math.sign(a - b);
    return compareNames(String(a), String(b));
  };
  const rows = [...body.rows].sort((left, right) => {
    const order = compare(key(left), key(right));
    return Math.abs(order) === 2 ? order : descending ? -order : order;
  });
  body.append(...rows);
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  table.tHead.rows[0].cells[column].setAttribute(
    "aria-sort", descending ? "descending" : "ascending");
}

function setUpTable(table) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () =>
      sortTable(table, column, head.getAttribute("aria-sort") === "ascending"));
  });
  if (table.tBodies[0].rows.length < 9) return;
  const input = document.createElement("input");
  input.className = "filter";
  input.type = "search";
  input.placeholder = "filter rows";
  input.setAttribute("aria-label", "filter rows");
  input.addEventListener("input", () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of table.tBodies[0].rows) {
      const text = [...row.cells].map((cell) => cell.textContent).join(" ").toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
  });
  table.parentElement.before(input);
}

function css(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

const COLOURS = 8;
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3]];

/* One uPlot series per line, and two unlisted ones per band. */
function lines(chart, everyRun) {
  const hasMeans = chart.series.some((one) => one.low);
  const chosen = chart.series.filter((one) => !hasMeans || everyRun === Boolean(one.thin)
    || one.dashed);
  const tables = [], series = [{ label: chart.x }], bands = [];
  for (const one of chosen) {
    const stroke = css("--c" + (one.colour % COLOURS));
    const dash = one.dashed ? [6, 4] : DASHES[Math.floor(one.colour / COLOURS) % DASHES.length];
    const value = (plot, y) => (y == null ? "–" : String(Number(y.toPrecision(4))));
    series.push({ label: one.name, stroke, dash, width: one.thin ? 1.3 : 2, value,
                  spanGaps: true, points: { show: one.x.length < 3, fill: stroke } });
    tables.push([one.x, one.y]);
    if (one.low) {
      const at = series.length;
      for (const key of ["high", "low"]) {
        series.push({ label: one.name + " " + key, class: "unlisted", width: 0,
                      spanGaps: true, points: { show: false } });
        tables.push([one.x, one[key]]);
      }
      bands.push({ series: [at, at + 1], fill: stroke + "2e" });
    }
  }
  return { data: tables.length ? uPlot.join(tables) : [[], []], series, bands };
}

function draw(box, chart, everyRun, log) {
  const { data, series, bands } = lines(chart, everyRun);
  const axis = (label, size) => ({ label, labelSize: 24, size, stroke: css("--ink"),
    labelFont: "13px system-ui", font: "12px system-ui", grid: { stroke: css("--line"), width: 1 },
    ticks: { stroke: css("--line"), width: 1 } });
  const plot = new uPlot({
    width: box.clientWidth, height: Math.max(260, Math.min(430, box.clientWidth * 0.45)),
    scales: { x: { time: false }, y: { distr: log ? 3 : 1 } },
    axes: [axis(chart.x, 44), axis(chart.y, 66)],
    cursor: { focus: { prox: 30 } }, focus: { alpha: 0.25 },
    legend: { live: true }, series, bands,
  }, data, box);
  plot.root.dataset.points = String(data[0].length);
  return plot;
}

function setUpChart(box, charts) {
  const target = box.querySelector(".plot"), select = box.querySelector("select");
  const runs = box.querySelector(".runs input"), log = box.querySelector("input.log");
  let plot = null;
  const show = () => {
    const chart = charts[Number(select.value)];
    runs.parentElement.hidden = !chart.series.some((one) => one.low);
    if (plot) plot.destroy();
    plot = draw(target, chart, runs.checked, log.checked);
  };
  select.hidden = charts.length < 2 && charts[0].title === charts[0].y;
  const choose = () => { log.checked = charts[Number(select.value)].log; show(); };
  select.addEventListener("change", choose);
  runs.addEventListener("change", show);
  log.addEventListener("change", show);
  let width = target.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(target.clientWidth - width) > 2) { width = target.clientWidth; show(); }
  }).observe(target);
  for (const query of ["(prefers-color-scheme: dark)", "print"]) {
    matchMedia(query).addEventListener("change", show);
  }
  choose();
}

document.querySelectorAll(".table table").forEach(setUpTable);
const CHARTS = JSON.parse(document.getElementById("charts").textContent);
document.querySelectorAll("[data-charts]").forEach((box) =>
  setUpChart(box, CHARTS[Number(box.dataset.charts)]));
