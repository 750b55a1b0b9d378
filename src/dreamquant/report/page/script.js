"use strict";
(() => {
  const root = document.documentElement;
  root.classList.add("js");

  // Light, dark, or as the reader's system has it.
  const bar = document.createElement("p");
  bar.className = "toolbar";
  const button = document.createElement("button");
  button.type = "button";
  button.className = "plain";
  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const label = () => { button.textContent = isDark() ? "Light colours" : "Dark colours"; };
  button.addEventListener("click", () => { root.dataset.theme = isDark() ? "light" : "dark"; label(); });
  label();
  bar.append(button);
  document.querySelector("nav").append(bar);

  // Sections become tabs; without this script they stand below each other.
  document.querySelectorAll("[data-tabs]").forEach((box, group) => {
    const panels = [...box.children];
    const list = document.createElement("div");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", box.dataset.tabs);
    const tabs = panels.map((panel, index) => {
      const tab = document.createElement("button");
      const heading = panel.querySelector("h3");
      tab.type = "button";
      tab.id = `tab-${group}-${index}`;
      tab.textContent = heading.textContent;
      heading.style.display = "none";
      tab.setAttribute("role", "tab");
      panel.id = `panel-${group}-${index}`;
      panel.setAttribute("role", "tabpanel");
      panel.setAttribute("aria-labelledby", tab.id);
      tab.setAttribute("aria-controls", panel.id);
      list.append(tab);
      return tab;
    });
    const show = (chosen) => {
      tabs.forEach((tab, index) => {
        tab.setAttribute("aria-selected", String(index === chosen));
        tab.tabIndex = index === chosen ? 0 : -1;
        panels[index].hidden = index !== chosen;
      });
    };
    tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => show(index));
      tab.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!step) return;
        const next = (index + step + tabs.length) % tabs.length;
        show(next);
        tabs[next].focus();
      });
    });
    box.prepend(list);
    show(0);
  });

  // What a mark shows, beside the pointer, or stepped through with the arrow keys.
  const tip = document.getElementById("tip");
  let current = null;
  const say = (mark, x, y) => {
    if (current) current.classList.remove("current");
    current = mark;
    tip.classList.toggle("on", Boolean(mark));
    if (!mark) return;
    mark.classList.add("current");
    tip.textContent = mark.dataset.tip;
    const box = tip.getBoundingClientRect();
    const left = Math.max(4, Math.min(x + 14, innerWidth - box.width - 8));
    const top = y + 18 + box.height > innerHeight ? y - box.height - 12 : y + 18;
    tip.style.transform = `translate(${left}px, ${top}px)`;
  };
  document.addEventListener("pointermove", (event) => {
    const mark = event.target.closest ? event.target.closest("[data-tip]") : null;
    if (mark || current) say(mark, event.clientX, event.clientY);
  });
  document.querySelectorAll("svg.chart").forEach((chart) => {
    const marks = [...chart.querySelectorAll("[data-tip]")];
    if (!marks.length) return;
    let at = -1;
    chart.tabIndex = 0;
    chart.setAttribute("aria-roledescription", "chart; arrow keys step through it");
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      if (event.key === "Escape") say(null);
      if (!step) return;
      event.preventDefault();
      at = Math.max(0, Math.min(marks.length - 1, at + step));
      const box = marks[at].getBoundingClientRect();
      say(marks[at], box.left + box.width / 2, box.top + box.height / 2);
    });
    chart.addEventListener("blur", () => say(null));
  });

  // Curves: drag to zoom along iterations, double-click to see all again.
  document.querySelectorAll("svg.curve").forEach((chart) => {
    const axis = chart.querySelector(".axis");
    const start = Number(axis.getAttribute("x1"));
    const width = Number(axis.getAttribute("x2")) - start;
    const moving = [chart.querySelector(".plot"), ...chart.querySelectorAll("rect.mark")];
    const names = [...chart.querySelectorAll("[data-share]")];
    const clip = document.createElementNS("http://www.w3.org/2000/svg", "clipPath");
    const frame = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    clip.id = `clip-${Math.random().toString(36).slice(2)}`;
    Object.entries({ x: start - 4, y: 0, width: width + 8, height: Number(axis.getAttribute("y1")) + 4 })
      .forEach(([name, value]) => frame.setAttribute(name, value));
    clip.append(frame);
    chart.prepend(clip);
    const layer = document.createElementNS("http://www.w3.org/2000/svg", "g");
    layer.setAttribute("clip-path", `url(#${clip.id})`);
    const inner = document.createElementNS("http://www.w3.org/2000/svg", "g");
    moving[0].before(layer);
    inner.append(...moving);
    layer.append(inner);
    const selection = document.createElementNS("http://www.w3.org/2000/svg", "rect");
    selection.setAttribute("class", "selection");
    selection.setAttribute("y", 12);
    selection.setAttribute("height", Number(axis.getAttribute("y1")) - 12);
    let view = [0, 1];
    const place = (event) => {
      const point = new DOMPoint(event.clientX, event.clientY).matrixTransform(chart.getScreenCTM().inverse());
      return Math.max(0, Math.min(1, (point.x - start) / width));
    };
    const apply = () => {
      const scale = 1 / (view[1] - view[0]);
      inner.setAttribute("transform", `translate(${start - scale * (start + view[0] * width)} 0) scale(${scale} 1)`);
      inner.querySelectorAll("circle").forEach((dot) => {
        dot.setAttribute("transform", `translate(${Number(dot.getAttribute("cx")) * (1 - 1 / scale)} 0) scale(${1 / scale} 1)`);
      });
      names.forEach((name) => {
        const [low, high] = [Number(name.dataset.low), Number(name.dataset.high)];
        const share = view[0] + Number(name.dataset.share) * (view[1] - view[0]);
        name.textContent = Math.round(low + share * (high - low));
      });
      chart.dataset.zoomed = String(scale > 1);
    };
    chart.classList.add("zoomable");
    let from = null;
    chart.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      from = place(event);
      event.preventDefault();
    });
    chart.addEventListener("pointermove", (event) => {
      if (from === null) return;
      const to = place(event);
      selection.setAttribute("x", start + Math.min(from, to) * width);
      selection.setAttribute("width", Math.abs(to - from) * width);
      if (!selection.isConnected) chart.append(selection);
    });
    addEventListener("pointerup", (event) => {
      if (from === null) return;
      const ends = [from, place(event)].sort((a, b) => a - b);
      from = null;
      selection.remove();
      if (ends[1] - ends[0] < 0.02) return;
      view = ends.map((end) => view[0] + end * (view[1] - view[0]));
      apply();
    });
    chart.addEventListener("dblclick", () => { view = [0, 1]; apply(); });
  });

  // Tables: a click on a heading sorts by it.
  document.querySelectorAll("table.sortable").forEach((table) => {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const down = heading.getAttribute("aria-sort") !== "descending";
        headings.forEach((other) => other.removeAttribute("aria-sort"));
        heading.setAttribute("aria-sort", down ? "descending" : "ascending");
        const value = (row) => row.cells[column].textContent.trim();
        const rows = [...table.tBodies[0].rows].sort((a, b) => {
          const [x, y] = [parseFloat(value(a)), parseFloat(value(b))];
          const order = heading.classList.contains("n")
            ? (Number.isNaN(x) ? -Infinity : x) - (Number.isNaN(y) ? -Infinity : y) || 0
            : value(a).localeCompare(value(b), undefined, { numeric: true });
          return down ? -order : order;
        });
        table.tBodies[0].append(...rows);
      });
    });
  });
})();
