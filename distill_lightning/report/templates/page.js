"use strict";
(() => {
  const root = document.documentElement;
  const charts = JSON.parse(document.getElementById("charts").textContent);
  const hidden = {}; // places of lines that are not shown, by scope
  const chosen = {}; // the matrix that is shown, by chart
  const drawn = new Set();
  const touch = matchMedia("(pointer: coarse)").matches;
  const systemIsDark = matchMedia("(prefers-color-scheme: dark)");
  let printed = false;

  // plotly reads texts as HTML of its own kind, with links and styles: here they are only text
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const cut = (text, most) => {
    const half = Math.floor(most / 2);
    return text.length <= most ? text : `${text.slice(0, half)}…${text.slice(-half)}`;
  };
  const number = (value) => {
    const size = Math.abs(value);
    return size >= 1e4 && size < 1e15
      ? Math.round(value).toLocaleString("en-US")
      : String(Number(value.toPrecision(4))).replace("-", "−");
  };
  // the spread has as many decimals as the mean
  const withSpread = (value, spread) => {
    const decimals = Math.min(8, Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value) || 1))));
    return number(value) + (spread > 0 ? ` ± ${spread < 1e15 ? spread.toFixed(decimals) : number(spread)}` : "");
  };
  const colour = (name) => getComputedStyle(root).getPropertyValue(`--${name}`).trim();

  function lineTraces(chart) {
    const off = hidden[chart.scope] || new Set();
    const bands = [], lines = [];
    for (const line of chart.lines.filter((one) => !off.has(one.place))) {
      const ink = colour(`line-${line.place % 8}`);
      if (line.spread.some((spread) => spread > 0)) {
        bands.push({
          x: [...line.x, ...[...line.x].reverse()],
          y: [...line.y.map((y, n) => y + line.spread[n]), ...line.y.map((y, n) => y - line.spread[n]).reverse()],
          fill: "toself", fillcolor: ink, opacity: 0.16, mode: "lines", line: {width: 0}, hoverinfo: "skip",
        });
      }
      const name = plain(cut(line.key ? `${line.key}  ${line.label}` : line.label, touch ? 24 : 48));
      lines.push({
        x: line.x, y: line.y, name,
        mode: line.x.length <= 20 ? "lines+markers" : "lines",
        line: {color: ink, width: 2, dash: Math.floor(line.place / 8) % 2 ? "dash" : "solid"},
        text: line.y.map((y, n) => `${name ? `${name}: ` : ""}<b>${withSpread(y, line.spread[n])}</b>`),
        hovertemplate: "%{text}<extra></extra>",
      });
    }
    return [...bands, ...lines];
  }

  function barTraces(chart) {
    const off = hidden[chart.scope] || new Set(), along = chart.lies ? "x" : "y", across = chart.lies ? "y" : "x";
    return chart.lines.filter((one) => !off.has(one.place)).map((line) => ({
      type: "bar", orientation: chart.lies ? "h" : "v", [across]: line.x,
      [along]: line.y.map((y) => y - chart.y_from), base: chart.y_from,
      marker: {color: colour(`line-${line.place % 8}`)},
      [`error_${along}`]: {type: "data", array: line.spread, color: colour("soft"), thickness: 1},
      text: line.y.map((y, n) => `${plain(line.label)} <b>${withSpread(y, line.spread[n])}</b>`), textposition: "none",
      hovertemplate: "%{text}<extra></extra>",
    }));
  }

  function barAxes(chart) {
    const names = chart.bars.map((name) => plain(cut(name, touch ? 24 : 40)));
    const named = {tickvals: names.map((_, n) => n), ticktext: names, zeroline: false, automargin: true};
    const axis = {zeroline: false, automargin: true};
    if (!chart.lies) return {xaxis: named, yaxis: axis, hovermode: "closest"};
    const height = 90 + 22 * chart.bars.length * Math.max(1, chart.lines.length * 0.7);
    return {xaxis: axis, yaxis: {...named, showgrid: false, autorange: "reversed"}, hovermode: "closest", height};
  }

  function lineAxes(chart) {
    const xaxis = {title: {text: plain(chart.x_label), standoff: 8}, zeroline: false};
    const yaxis = {zeroline: false, automargin: true};
    if (chart.log_y) Object.assign(yaxis, {type: "log", exponentformat: "power"});
    const xs = [...new Set(chart.lines.flatMap((line) => line.x))].sort((a, b) => a - b);
    if (chart.log_x) {
      xaxis.type = "log";
      if (xs.length <= 8) Object.assign(xaxis, {tickvals: xs, ticktext: xs.map(number)});
    } else if (xs.length <= 8 && xs.every(Number.isInteger)) {
      Object.assign(xaxis, {tickvals: xs, ticktext: xs.map(number)});
    }
    const shapes = [];
    if (chart.diagonal) {
      xaxis.range = yaxis.range = [0, 1];
      shapes.push({type: "line", x0: 0, y0: 0, x1: 1, y1: 1, line: {color: colour("soft"), width: 1, dash: "dot"}});
    }
    return {xaxis, yaxis, shapes, hovermode: chart.diagonal ? "closest" : "x unified"};
  }

  function confusionTraces(chart) {
    const {counts} = chart.matrices[chosen[chart.id] || 0];
    const names = chart.classes.map((name) => plain(cut(name, 60)));
    const sums = counts.map((row) => Math.max(1, row.reduce((a, b) => a + b, 0)));
    return [{
      type: "heatmap", z: counts.map((row, n) => row.map((count) => count / sums[n])), zmin: 0, zmax: 1,
      text: counts.map((row) => row.map((count) => (count ? number(count) : ""))),
      customdata: counts.map((row, n) => row.map((count, m) => [names[n], names[m], number(count)])),
      texttemplate: names.length <= 12 ? "%{text}" : "",
      hovertemplate: "true: %{customdata[0]}<br>predicted: %{customdata[1]}<br>" +
        "%{customdata[2]} pictures, %{z:.1%} of the true class<extra></extra>",
      colorscale: [[0, colour("paper")], [1, colour("line-0")]], xgap: 1, ygap: 1, showscale: false,
    }];
  }

  function confusionAxes(chart) {
    const places = chart.classes.map((_, number) => number);
    const names = chart.classes.map((name) => plain(cut(name, 16)));
    const axis = {tickvals: places, ticktext: names, showgrid: false, zeroline: false, automargin: true};
    return {
      xaxis: {...axis, title: {text: "predicted class", standoff: 8}},
      yaxis: {...axis, title: {text: "true class", standoff: 8}, autorange: "reversed"}, hovermode: "closest",
    };
  }

  function draw(chart) {
    const box = document.getElementById(chart.id);
    const confusion = chart.kind === "confusion";
    const axes = confusion ? confusionAxes(chart) : chart.bars ? barAxes(chart) : lineAxes(chart);
    const ink = {gridcolor: colour("rule"), linecolor: colour("soft"), tickcolor: colour("soft")};
    const layout = {
      ...axes, xaxis: {...axes.xaxis, ...ink}, yaxis: {...axes.yaxis, ...ink},
      font: {color: colour("ink"), family: "system-ui, sans-serif", size: 13},
      height: (axes.height || (confusion ? 430 : 320)) * (printed ? 0.75 : 1), margin: {l: 52, r: 10, t: 26, b: 48}, showlegend: false,
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: touch ? false : "zoom",
      hoverlabel: {bgcolor: colour("raised"), bordercolor: colour("soft"), font: {color: colour("ink")}, namelength: -1},
      modebar: {bgcolor: "rgba(0,0,0,0)", color: colour("soft"), activecolor: colour("ink")},
      uirevision: "kept", // what is zoomed in stays so
      ...(printed ? {width: 320, autosize: false} : {autosize: true}),
    };
    const config = {
      responsive: true, displaylogo: false, displayModeBar: touch ? true : "hover",
      modeBarButtons: [["zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]],
    };
    const traces = confusion ? confusionTraces(chart) : chart.bars ? barTraces(chart) : lineTraces(chart);
    Plotly.react(box, traces, layout, config);
    drawn.add(chart);
  }

  // a chart in a folded part has no width yet: it is drawn when the part is opened
  const visible = (chart) => document.getElementById(chart.id).offsetParent !== null;
  const drawNew = () => charts.filter((chart) => visible(chart) && !drawn.has(chart)).forEach(draw);
  const drawAgain = () => drawn.forEach(draw);

  for (const button of document.querySelectorAll(".legend button")) {
    button.addEventListener("click", () => {
      const {scope, place} = button.dataset;
      const off = (hidden[scope] ||= new Set());
      const show = off.delete(Number(place)) || !off.add(Number(place));
      button.setAttribute("aria-pressed", String(show));
      [...drawn].filter((chart) => chart.scope === scope).forEach(draw);
    });
  }
  for (const select of document.querySelectorAll("select[data-chart]")) {
    select.addEventListener("change", () => {
      chosen[select.dataset.chart] = Number(select.value);
      draw(charts.find((chart) => chart.id === select.dataset.chart));
    });
  }
  for (const part of document.querySelectorAll("details")) part.addEventListener("toggle", drawNew);

  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : systemIsDark.matches);
  const setTheme = () => {
    theme.textContent = isDark() ? "Light" : "Dark";
    theme.setAttribute("aria-label", `Switch to ${isDark() ? "light" : "dark"} colours`);
    drawAgain();
  };
  theme.hidden = false;
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    setTheme();
  });
  systemIsDark.addEventListener("change", setTheme);
  let before; // the theme before printing
  addEventListener("beforeprint", () => {
    before = root.dataset.theme;
    root.dataset.theme = "light";
    printed = true;
    drawAgain();
  });
  addEventListener("afterprint", () => {
    if (before) root.dataset.theme = before;
    else delete root.dataset.theme;
    printed = false;
    drawAgain();
  });
  drawNew();
  setTheme();
})();
