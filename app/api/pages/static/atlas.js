// The map: points come some thousands at a time, a series for each colour and size.

import { chartOn, colours, escaped } from "./charts.js";

const element = document.querySelector('[data-chart="atlas"]');
// Told apart by most people who see few colours (Okabe and Ito).
const PALETTE = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#b3a800", "#8c6bb1", "#7f7f7f"];
const SIZES = [5, 8, 12, 17];
const LISTED = 60;
const NAMED = 20; // found ones whose names stand on the map
const MANY = 5000; // tasks that are drawn smaller, without outlines, all at once

if (element) window.addEventListener("load", () => start(element));

async function start(element) {
  const facts = JSON.parse(document.getElementById(element.dataset.from).textContent);
  const chart = chartOn(element);
  const says = document.querySelector("#atlas-says");
  const colour = document.querySelector("#colour");
  const find = document.querySelector("#find");
  let tasks = [];
  const draw = () => chart.setOption(option(tasks, facts, colour.value, wanted(tasks, find.value)), { replaceMerge: ["series"] });

  chart.on("click", (event) => { if (event.data?.[2]) location.assign(facts.task + event.data[2]); });
  colour.addEventListener("change", draw);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  document.querySelector("#atlas-form").addEventListener("submit", (event) => event.preventDefault());
  let waiting = 0;
  find.addEventListener("input", () => {
    clearTimeout(waiting);
    waiting = setTimeout(() => { draw(); list(wanted(tasks, find.value), find.value, facts, says); }, 150);
  });

  for (let cursor = null, shown = 0; ;) {
    const address = cursor ? `${facts.points}&cursor=${encodeURIComponent(cursor)}` : facts.points;
    const answer = await fetch(address);
    if (!answer.ok) { says.textContent = "The points could not be fetched: load the page again."; return; }
    const part = await answer.json();
    tasks = tasks.concat(part.items);
    cursor = part.next_cursor;
    // Drawn anew once there are twice as many, and in the end.
    if (!cursor || tasks.length >= 2 * shown) { draw(); shown = tasks.length; }
    says.textContent = `${tasks.length} of ${part.tasks} tasks.`;
    if (!cursor) return;
  }
}

function wanted(tasks, text) {
  const words = text.trim().toLowerCase();
  if (!words) return null;
  return new Set(tasks.filter((task) => task.name.toLowerCase().includes(words) || task.tags.some((tag) => tag.toLowerCase().includes(words))));
}

function list(found, text, facts, says) {
  const section = document.querySelector("#found");
  section.hidden = !found;
  if (!found) { says.textContent = ""; return; }
  says.textContent = `${found.size} found.`;
  document.querySelector("#found-list").replaceChildren(...[...found].slice(0, LISTED).map((task) => {
    const item = document.createElement("li");
    const link = document.createElement("a");
    link.href = facts.task + task.id;
    link.textContent = task.name;
    item.append(link);
    return item;
  }));
}

function option(tasks, facts, by, found) {
  const colour = colours();
  const group = grouping(tasks, facts, by);
  const limits = quantiles(tasks.map((task) => task.complexity), SIZES.length);
  const cells = new Map();
  for (const task of tasks) {
    const size = limits.findIndex((limit) => task.complexity <= limit);
    const lit = found ? found.has(task) : true;
    const key = `${group.of(task)} ${size} ${lit} ${task.library}`;
    if (!cells.has(key)) cells.set(key, { number: group.of(task), size, lit, library: task.library, data: [] });
    cells.get(key).data.push([task.x, task.y, task.id, task.name, task.complexity, task.classes]);
  }
  const many = tasks.length > MANY;
  const series = [...cells.values()].sort((a, b) => a.lit - b.lit || b.size - a.size).map((cell) => ({
    type: "scatter", name: group.names[cell.number], data: cell.data, dimensions: ["x", "y", "id", "name", "complexity", "classes"], encode: { x: 0, y: 1 },
    symbol: cell.library ? "circle" : "diamond", symbolSize: (SIZES[cell.size] + (cell.library ? 0 : 6)) * (many ? 0.4 : 1), large: many && cell.data.length > NAMED, largeThreshold: NAMED, progressive: 0,
    itemStyle: { color: PALETTE[cell.number % PALETTE.length], opacity: cell.lit ? 0.75 : 0.08, borderColor: cell.library ? colour.paper : colour.ink, borderWidth: many ? 0 : cell.library ? 0.5 : 1 },
    label: { show: cell.lit && found !== null && found.size <= NAMED, formatter: (at) => at.data[3], position: "right", color: colour.ink, textBorderColor: colour.paper, textBorderWidth: 3 },
    emphasis: { itemStyle: { opacity: 1, borderColor: colour.ink, borderWidth: 1.5 } },
  }));
  series.push({
    type: "scatter", name: "", symbolSize: 1, silent: true, color: "transparent", tooltip: { show: false }, z: 5,
    data: facts.clusters.map((each) => ({ value: each.position, name: each.name })),
    label: { show: true, formatter: (at) => at.name, color: colour.ink, textBorderColor: colour.paper, textBorderWidth: 3, fontSize: 12, position: "inside" },
    labelLayout: { hideOverlap: true },
  });
  const hidden = { type: "value", scale: true, axisLine: { show: false }, axisTick: { show: false }, axisLabel: { show: false }, splitLine: { show: false } };
  return {
    animation: false,
    textStyle: { fontFamily: "system-ui, sans-serif" },
    legend: { type: "scroll", bottom: 4, textStyle: { color: colour.ink }, data: group.names.filter((_, number) => number < PALETTE.length).map((name, number) => ({ name, itemStyle: { color: PALETTE[number], opacity: 1 } })) },
    grid: { left: 10, right: 10, top: 10, bottom: 40 },
    xAxis: hidden,
    yAxis: hidden,
    dataZoom: [{ type: "inside", xAxisIndex: 0, filterMode: "none" }, { type: "inside", yAxisIndex: 0, filterMode: "none" }],
    tooltip: {
      trigger: "item", backgroundColor: colour.paper, borderColor: colour.line, textStyle: { color: colour.ink },
      formatter: (at) => { const [, , , name, complexity, classes] = at.data; return `<strong>${escaped(name)}</strong><br>${classes ?? "?"} classes, complexity ${complexity.toPrecision(3)}`; },
    },
    series,
  };
}

// Which group a task is in, and what the groups are called; beyond the palette all are one.
function grouping(tasks, facts, by) {
  if (by === "library") return { names: ["yours", "the library's"], of: (task) => Number(task.library) };
  if (by === "cluster") {
    const kept = facts.clusters.slice(0, PALETTE.length - 1);
    return { names: [...kept.map((each) => each.name), "others"], of: (task) => (task.cluster === null || task.cluster >= kept.length ? kept.length : task.cluster) };
  }
  const counts = new Map();
  for (const task of tasks) for (const tag of task.tags) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const kept = [...counts].sort((a, b) => b[1] - a[1]).slice(0, PALETTE.length - 1).map(([tag]) => tag);
  return {
    names: [...kept, "others"],
    of: (task) => { const place = kept.findIndex((tag) => task.tags.includes(tag)); return place < 0 ? kept.length : place; },
  };
}

function quantiles(values, n) {
  const sorted = [...values].sort((a, b) => a - b);
  return Array.from({ length: n }, (_, i) => (i === n - 1 ? Infinity : sorted[Math.floor(((i + 1) * sorted.length) / n)]));
}
