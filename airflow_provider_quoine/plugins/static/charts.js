// Draws the page's data with uPlot (https://github.com/leeoniya/uPlot, version 1.6.32, MIT: uPlot.LICENSE.txt).
"use strict";

const HEIGHT = 320;
const data = JSON.parse(document.getElementById("chart-data").textContent);
const number = (text) => (text === null ? null : Number(text));
const numbers = (texts) => texts.map(number);
// A canvas knows no variables of CSS, so an element that nobody sees turns them into colours.
const swatch = document.body.appendChild(document.createElement("i"));
swatch.hidden = true;
const colour = (name) => {
  swatch.style.color = `var(${name})`;
  return getComputedStyle(swatch).color;
};
const words = (value) => (value === null || value === undefined ? "–" : value.toLocaleString("en", { maximumFractionDigits: 10 }));

function axis(more) {
  return { stroke: colour("--words"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line"), width: 1 }, ...more };
}

// A line of its own shape for each series, so that nobody has to tell them by colour.
function series(label, name, more) {
  return { label, stroke: colour(name), width: 2, value: (_, value) => words(value), ...more };
}

// Shades stretches of the x axis, each at least a pixel wide, behind everything else.
function shade(plot, stretches, ground, edge) {
  const { ctx, bbox } = plot;
  const [inside, border] = [colour(ground), colour(edge)];
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  for (const [from, until] of stretches) {
    const left = plot.valToPos(from, "x", true);
    const width = Math.max(plot.valToPos(until, "x", true) - left, devicePixelRatio);
    ctx.fillStyle = inside;
    ctx.fillRect(left, bbox.top, width, bbox.height);
    ctx.fillStyle = border;
    for (const at of [left, left + width - devicePixelRatio]) ctx.fillRect(at, bbox.top, devicePixelRatio, bbox.height);
  }
  ctx.restore();
}

function depth() {
  const sides = { bids: new Map(), asks: new Map() };
  for (const name in sides) for (const [price, total] of data[name]) sides[name].set(number(price), number(total));
  const prices = [...new Set([...sides.bids.keys(), ...sides.asks.keys()])].sort((one, other) => one - other);
  const column = (side) => prices.map((price) => side.get(price) ?? null);
  const best = [data.bids[0], data.asks[0]].filter(Boolean).map(([price]) => number(price));
  const mid = number(data.mid);
  return {
    columns: [prices, column(sides.bids), column(sides.asks)],
    options: {
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, (high || 1) * 1.05] } },
      axes: [
        axis({ values: (_, values) => values.map(words), space: 90 }),
        axis({ size: 70, values: (_, values) => values.map(words) }),
      ],
      series: [
        { label: "Price", value: (_, value) => words(value) },
        series("Bids, cumulated", "--good", { fill: colour("--good-ground"), spanGaps: true, paths: uPlot.paths.stepped({ align: -1 }) }),
        series("Asks, cumulated", "--bad", { fill: colour("--bad-ground"), spanGaps: true, dash: [6, 3], paths: uPlot.paths.stepped({ align: 1 }) }),
      ],
      hooks: {
        // After uPlot's own first draw, which shows all.
        ready: [(plot) => queueMicrotask(() => lookNear(plot, [data.bids, data.asks].map((side) => side.map(([price]) => number(price)))))],
        drawClear: [(plot) => {
          if (best.length === 2) shade(plot, [best.sort((one, other) => one - other)], "--raised", "--line");
          if (mid !== null) shade(plot, [[mid, mid]], "--words", "--words");
        }],
      },
    },
  };
}

// Begins near the middle: a bid of 1 far below all others would press the rest into one line.
function lookNear(plot, sides) {
  const away = (side) => side.map((price) => Math.abs(price - side[0])).sort((one, other) => one - other);
  const reach = Math.max(...sides.map((side) => 5 * (away(side)[side.length >> 1] ?? 0)));
  const near = sides.flatMap((side) => side.filter((price) => Math.abs(price - side[0]) <= reach));
  if (reach && near.length < sides.flat().length) plot.setScale("x", { min: Math.min(...near), max: Math.max(...near) });
}

function overTime(label, columns, own) {
  return {
    columns: [data.at, ...columns],
    options: {
      cursor: { sync: { key: "time" } },
      tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
      scales: { x: { time: true, range: (_, low, high) => (low === high ? [data.from, data.until] : [low, high]) } },
      axes: [axis({ values: times, space: 80 }), axis({ size: 90, values: (_, values) => values.map(words) })],
      series: [{ label: "UTC", value: "{YYYY}-{MM}-{DD} {HH}:{mm}:{ss}" }, series(label, "--link"), ...own],
      hooks: { drawClear: [(plot) => shade(plot, data.gaps, "--bad-ground", "--bad")] },
    },
  };
}

// Hours and minutes; the day where it is another one than that of the tick before.
function times(plot, values, _axis, _space, step) {
  const text = (seconds) => new Date(seconds * 1000).toISOString();
  return values.map((at, number) => {
    const clock = text(at).slice(11, step < 60 ? 19 : 16);
    return number && text(values[number - 1]).slice(0, 10) === text(at).slice(0, 10) ? clock : `${clock}\n${text(at).slice(0, 10)}`;
  });
}

const CHARTS = {
  depth,
  mid: () => overTime("Mid", [numbers(data.mid), numbers(data.crossed)], [
    series("Crossed", "--warn", { width: 0, points: { show: true, size: 8, fill: colour("--warn") } }),
  ]),
  spread: () => overTime("Spread", [numbers(data.spread)], []),
};

const drawn = new Map();

function draw(place) {
  drawn.get(place)?.destroy();
  const { columns, options } = CHARTS[place.dataset.chart]();
  drawn.set(place, new uPlot({ width: place.clientWidth, height: HEIGHT, ...options }, columns, place));
}

function drawAll() {
  for (const place of document.querySelectorAll("[data-chart]")) draw(place);
}

drawAll();
new MutationObserver(drawAll).observe(document.documentElement, { attributeFilter: ["data-colours"] });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
addEventListener("resize", () => {
  for (const [place, plot] of drawn) plot.setSize({ width: place.clientWidth, height: HEIGHT });
});
