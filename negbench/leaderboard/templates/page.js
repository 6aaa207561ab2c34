"use strict";
(() => {
  const num = (text) => (text === "" || text === undefined ? null : Number(text));

  for (const group of document.querySelectorAll(".group")) {
    const table = group.querySelector("table.board");
    if (!table) continue;
    const body = table.tBodies[table.tBodies.length - 1];
    const rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells];
    const search = group.querySelector("input[type=search]");
    const rule = group.querySelector("select.rule");
    const order = group.querySelector("select.sort");
    const count = group.querySelector(".count");
    for (const tool of group.querySelectorAll("[data-needs-script]")) tool.hidden = false;

    const key = (row, at) => {
      const cell = row.cells[at];
      if (at === 0) return cell.textContent.trim().toLowerCase();
      return num(group.dataset.view === "difference" ? cell.dataset.d : cell.dataset.v);
    };
    const sort = (at, up) => {
      rows.sort((a, b) => {
        const x = key(a, at), y = key(b, at);
        if (x === null || y === null) return (x === null) - (y === null);
        return (x < y ? -1 : x > y ? 1 : 0) * (up ? 1 : -1);
      });
      body.append(...rows);
      heads.forEach((head, i) => {
        if (i === at) head.setAttribute("aria-sort", up ? "ascending" : "descending");
        else head.removeAttribute("aria-sort");
      });
    };
    const best = (at) => heads[at].dataset.better !== "high";
    heads.forEach((head, at) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const now = head.getAttribute("aria-sort");
        sort(at, now === null ? best(at) : now !== "ascending");
        order.value = String(at);
      });
    });
    order.addEventListener("change", () => sort(Number(order.value), best(Number(order.value))));

    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      for (const row of rows) {
        const fits = words.every((word) => row.dataset.find.includes(word)) &&
          (!rule.value || row.dataset.rule === rule.value);
        row.hidden = !fits;
        shown += fits;
      }
      count.textContent = shown === rows.length ? `${shown} entries` : `${shown} of ${rows.length} entries`;
    };
    search.addEventListener("input", filter);
    rule.addEventListener("change", filter);
    filter();

    for (const button of group.querySelectorAll("[data-view-to]")) {
      button.addEventListener("click", () => {
        group.dataset.view = button.dataset.viewTo;
        for (const other of group.querySelectorAll("[data-view-to]")) {
          other.setAttribute("aria-pressed", String(other === button));
        }
      });
    }
    for (const box of group.querySelectorAll("[data-column]")) {
      box.addEventListener("change", () => {
        for (const row of table.rows) row.cells[Number(box.dataset.column)].hidden = !box.checked;
      });
    }
    const menu = group.querySelector("details.columns");
    if (menu) {
      menu.addEventListener("keydown", (event) => {
        if (event.key === "Escape") { menu.open = false; menu.querySelector("summary").focus(); }
      });
      document.addEventListener("click", (event) => {
        if (!menu.contains(event.target)) menu.open = false;
      });
    }
  }
})();
