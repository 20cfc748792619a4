// Charts from the JSON that a page carries. Colours are the page's own, light or dark.

import { offerPictures } from "./pictures.js";

const DRAWN = { curve, layers, beside };

export function colours() {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(`--${name}`).trim();
  return { paper: of("paper"), ink: of("ink"), quiet: of("quiet"), line: of("line"), accent: of("accent"), warn: of("warn"), good: of("good"), bad: of("bad"), span: of("span") };
}

export function chartOn(element) {
  const chart = echarts.init(element, null, { renderer: "canvas" });
  new ResizeObserver(() => chart.resize()).observe(element);
  offerPictures(element, chart, () => colours().paper);
  return chart;
}

export function axis(colour, more) {
  return {
    axisLine: { lineStyle: { color: colour.quiet } },
    axisLabel: { color: colour.quiet },
    nameTextStyle: { color: colour.quiet },
    splitLine: { lineStyle: { color: colour.line } },
    nameLocation: "middle",
    ...more,
  };
}

const dark = matchMedia("(prefers-color-scheme: dark)");

window.addEventListener("load", () => {
  for (const element of document.querySelectorAll("[data-chart]")) {
    const draw = DRAWN[element.dataset.chart];
    if (!draw) continue;
    const data = JSON.parse(document.getElementById(element.dataset.from).textContent);
    const chart = chartOn(element);
    const again = () => chart.setOption(draw(data, colours()), true);
    again();
    dark.addEventListener("change", again);
  }
});

function frame(colour) {
  return {
    animation: false,
    textStyle: { color: colour.ink, fontFamily: "system-ui, sans-serif" },
    legend: { textStyle: { color: colour.ink }, top: 0 },
    grid: { left: 60, right: 60, top: 40, bottom: 45 },
    tooltip: { trigger: "axis", backgroundColor: colour.paper, borderColor: colour.line, textStyle: { color: colour.ink } },
  };
}

function curve(epochs, colour) {
  const of = (key) => epochs.map((epoch) => [epoch.number, epoch[key]]);
  const series = [
    { name: "loss, learnt from", type: "line", data: of("training_loss"), color: colour.quiet, lineStyle: { type: "dashed" } },
    { name: "loss, held out", type: "line", data: of("loss"), color: colour.accent },
    { name: "accuracy, held out", type: "line", data: of("accuracy"), color: colour.good, yAxisIndex: 1, symbol: "rect" },
  ];
  const axes = [
    axis(colour, { type: "value", name: "loss", nameGap: 40 }),
    axis(colour, { type: "value", name: "accuracy", min: 0, max: 1, nameGap: 40, splitLine: { show: false }, axisLabel: { color: colour.quiet, formatter: (value) => `${100 * value}%` } }),
  ];
  if (epochs.some((epoch) => epoch.information !== null)) {
    axes.push(axis(colour, { type: "log", name: "information", position: "right", offset: 60, nameGap: 40, splitLine: { show: false } }));
    series.push({ name: "information in the weights", type: "line", data: of("information").filter(([, value]) => value > 0), color: colour.warn, yAxisIndex: 2, symbol: "triangle", connectNulls: true });
  }
  const base = frame(colour);
  return {
    ...base,
    grid: { ...base.grid, right: axes.length > 2 ? 120 : 60, top: 60 },
    xAxis: axis(colour, { type: "value", name: "epoch", nameGap: 28, minInterval: 1, min: 1 }),
    yAxis: axes,
    series,
  };
}

function layers(found, colour) {
  return {
    ...frame(colour),
    legend: { show: false },
    tooltip: {
      trigger: "axis", backgroundColor: colour.paper, borderColor: colour.line, textStyle: { color: colour.ink },
      formatter: ([at]) => { const each = found[at.dataIndex]; return `${escaped(each.name)}<br>${each.shift.toFixed(2)} doublings; its filters lie ${each.spread.toFixed(2)} about that`; },
    },
    xAxis: axis(colour, { type: "category", data: found.map((each) => each.name), axisLabel: { show: false }, name: "layers, from the image to the answer", nameGap: 18, axisTick: { show: false } }),
    yAxis: axis(colour, { type: "value", name: "doublings", nameGap: 40 }),
    series: [{ type: "bar", data: found.map((each) => each.shift), color: colour.accent, barCategoryGap: "20%" }],
  };
}

function beside(found, colour) {
  const whiskers = found.flatMap((each) => [[each.low, each.value], [each.high, each.value], [null, null]]);
  return {
    ...frame(colour),
    legend: { show: false },
    tooltip: {
      trigger: "item", backgroundColor: colour.paper, borderColor: colour.line, textStyle: { color: colour.ink },
      formatter: (at) => { const each = found[at.dataIndex]; return `${escaped(each.model)}<br>forecast ${percent(each.typical)} (${percent(each.low)} to ${percent(each.high)})<br>came out ${percent(each.value)}`; },
    },
    xAxis: axis(colour, { type: "value", name: "forecast", min: 0, max: 1, nameGap: 28, axisLabel: { color: colour.quiet, formatter: percent } }),
    yAxis: axis(colour, { type: "value", name: "came out", min: 0, max: 1, nameGap: 45, axisLabel: { color: colour.quiet, formatter: percent } }),
    series: [
      { type: "line", data: [[0, 0], [1, 1]], color: colour.quiet, symbol: "none", silent: true, lineStyle: { type: "dashed", width: 1 } },
      { type: "line", data: whiskers, color: colour.span, symbol: "none", silent: true, lineStyle: { width: 2 } },
      { type: "scatter", data: found.map((each) => [each.typical, each.value]), color: colour.accent, symbolSize: 9 },
    ],
  };
}

export function percent(share) {
  return `${Math.round(100 * share)}%`;
}

export function escaped(text) {
  const element = document.createElement("span");
  element.textContent = text;
  return element.innerHTML;
}
