// A chart as a file, as large as it stands on the page, in its colours and as far as it is zoomed.

const DRAWN = { PNG: png, SVG: svg };

export function offerPictures(element, chart, paper) {
  const line = document.createElement("p");
  line.className = "small";
  for (const [kind, draw] of Object.entries(DRAWN)) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "plain";
    button.textContent = `Save as ${kind}`;
    button.addEventListener("click", async () => save(await draw(chart, paper()), `${element.dataset.chart}.${kind.toLowerCase()}`));
    line.append(button, " ");
  }
  element.after(line);
}

function png(chart, paper) {
  return new Promise((done) => chart.renderToCanvas({ pixelRatio: 2, backgroundColor: paper }).toBlob(done));
}

function svg(chart, paper) {
  const drawn = echarts.init(null, null, { renderer: "svg", ssr: true, width: chart.getWidth(), height: chart.getHeight() });
  drawn.setOption({ ...chart.getOption(), backgroundColor: paper });
  const text = drawn.renderToSVGString();
  drawn.dispose();
  return new Blob([text], { type: "image/svg+xml" });
}

function save(content, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(content);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}
