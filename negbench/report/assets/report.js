"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const byId = (id) => document.getElementById(id);
  const BATCH = 48;
  const text = (number) => (number === undefined ? "" : data.texts[number]);

  const make = (name, options = {}, ...children) => {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(options)) {
      if (value === undefined || value === null) continue;
      if (key === "text") node.textContent = value;
      else if (key === "class") node.className = value;
      else node.setAttribute(key, value);
    }
    node.append(...children);
    return node;
  };
  const said = (name, value, className = "") =>
    make(name, { text: value, class: `text ${className}`.trim(), dir: "auto" });

  // Pictures: parsed by the chunk, when first looked at -----------------------------------------

  const chunks = new Map();
  const waiting = new Set();
  const pictureOf = (number) => {
    const place = Math.floor(number / data.chunk);
    if (!chunks.has(place)) {
      const holder = byId(`pictures-${place}`);
      if (holder === null || (document.readyState === "loading" && holder.nextSibling === null)) return null;
      chunks.set(place, JSON.parse(holder.textContent));
      holder.remove();
    }
    return "data:image/webp;base64," + chunks.get(place)[number % data.chunk];
  };
  const fill = (frame) => {
    const address = pictureOf(frame.picture);
    if (address === null) {
      waiting.add(frame);
      return;
    }
    waiting.delete(frame);
    const image = make("img", { alt: frame.words, decoding: "async", draggable: "false" });
    image.src = address;
    frame.replaceChildren(image);
  };
  const seen = new IntersectionObserver(
    (entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) continue;
        seen.unobserve(entry.target);
        fill(entry.target);
      }
    },
    { rootMargin: "300px" },
  );
  document.addEventListener("DOMContentLoaded", () => [...waiting].forEach(fill));

  const frameOf = (image, words, { now = false } = {}) => {
    const frame = make("span", { class: `frame${data.tiny ? " tiny" : ""}` });
    setFrame(frame, image, words, now);
    return frame;
  };
  const setFrame = (frame, image, words, now = true) => {
    if (image.i < 0) {
      frame.replaceChildren(make("span", { text: "no picture at hand" }));
      return;
    }
    frame.picture = image.i;
    frame.words = words;
    if (now) fill(frame);
    else seen.observe(frame);
  };

  // Numbers --------------------------------------------------------------------------------------

  const shown = (value) => {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    return value.toFixed(size >= 100 ? 1 : size >= 1 ? 2 : 3).replace("-", "−");
  };
  const signed = (value) => (value === null ? "–" : (value >= 0 ? "+" : "") + shown(value));
  const difference = (one, two) => (one === null || two === null ? null : one - two);
  const gain = (item, metric) => difference(item.a.v[metric], item.w.v[metric]);
  const verdict = (metric, value) => {
    const better = data.metrics[metric].better;
    if (value === null || better === 0 || value === 0) return "";
    return value > 0 === better > 0 ? "better" : "worse";
  };
  const marks = { better: "▲", worse: "▼", "": "" };

  const named = (...names) => {
    for (const name of names) {
      const place = data.metrics.findIndex((metric) => metric.name === name);
      if (place >= 0) return place;
    }
    return -1;
  };
  const hasTwins = data.metrics.map((_, metric) => data.items.some((item) => item.w.v[metric] !== null));
  const damage = named("lpips", "ssim", "psnr");
  const reverse = named("presence", "clip_to_negative");

  // What is asked for ----------------------------------------------------------------------------

  const controls = Object.fromEntries(
    ["find", "metric", "sort", "method", "tag", "outcome", "reveal"].map((id) => [id, byId(id)]),
  );
  const offer = (select, pairs) =>
    pairs.forEach(([value, words]) => select.append(make("option", { value, text: words })));

  offer(controls.metric, data.metrics.map((metric, place) => [place, metric.name + (metric.unit ? ` (${metric.unit})` : "")]));
  const chief = data.metrics.findIndex((m, place) => hasTwins[place] && m.better !== 0 && m.name !== "evaluations");
  const liked = ["presence", "aesthetic"].map((name) => named(name)).find((place) => place >= 0 && hasTwins[place]);
  controls.metric.value = String(liked ?? Math.max(chief, 0));
  offer(controls.sort, [
    ["gain", "Largest gain"],
    ["loss", "Largest loss"],
    ...(damage >= 0 ? [["damage", "Most damage to the twin"]] : []),
    ...(reverse >= 0 ? [["reverse", "Reverse activation"]] : []),
    ["high", "Highest value"],
    ["low", "Lowest value"],
    ["case", "Case"],
  ]);
  offer(controls.method, [["", "All methods"], ...data.methods.map((name, place) => [place, name])]);
  const counts = new Map();
  for (const item of data.items) for (const tag of item.t) counts.set(tag, (counts.get(tag) ?? 0) + 1);
  const tags = [...counts.keys()].sort((a, b) => (text(a) < text(b) ? -1 : 1)).slice(0, 500);
  offer(controls.tag, [["", "All tags"], ...tags.map((tag) => [tag, `${text(tag).slice(0, 60)} (${counts.get(tag)})`])]);
  offer(controls.outcome, [
    ["", "All outcomes"], ["better", "Better than the twin"], ["worse", "Worse than the twin"],
    ["same", "Equal to the twin"], ["unscored", "Unscored"], ["sensitive", "Sensitive"],
  ]);
  if (!data.items.some((item) => item.f)) controls.reveal.closest("label").hidden = true;

  const haystacks = data.items.map((item) =>
    [item.p, item.q, item.c, item.k, item.o, ...item.t, ...item.n.map(([number]) => number)]
      .map(text).concat(data.methods[item.m]).join("\n").toLowerCase(),
  );
  const uncovered = new Set();
  const covered = (place) => Boolean(data.items[place].f) && !controls.reveal.checked && !uncovered.has(place);

  const sortKey = (metric) => {
    const aim = data.metrics[metric]?.better === -1 ? -1 : 1;
    const up = (value, sign) => (value === null ? null : sign * value);
    return {
      gain: (item) => up(gain(item, metric), -aim),
      loss: (item) => up(gain(item, metric), aim),
      damage: (item) => up(item.a.v[damage], data.metrics[damage]?.better === -1 ? -1 : 1),
      reverse: (item) => up(gain(item, reverse), -1),
      high: (item) => up(item.a.v[metric], -1),
      low: (item) => up(item.a.v[metric], 1),
    }[controls.sort.value];
  };
  const outcomeOf = (item, metric) => {
    const value = gain(item, metric);
    if (item.a.v[metric] === null) return "unscored";
    if (value === 0) return "same";
    return verdict(metric, value);
  };

  let chosen = [];
  let made = 0;
  let current = -1;
  const cards = byId("cards");
  const more = byId("more");

  const choose = () => {
    const metric = Number(controls.metric.value);
    const words = controls.find.value.toLowerCase().split(/\s+/).filter(Boolean);
    chosen = [];
    data.items.forEach((item, place) => {
      if (controls.method.value !== "" && item.m !== Number(controls.method.value)) return;
      if (controls.tag.value !== "" && !item.t.includes(Number(controls.tag.value))) return;
      const asked = controls.outcome.value;
      if (asked === "sensitive" ? !item.f : asked !== "" && outcomeOf(item, metric) !== asked) return;
      if (!words.every((word) => haystacks[place].includes(word))) return;
      chosen.push(place);
    });
    const key = sortKey(metric);
    if (key) {
      const keys = new Map(chosen.map((place) => [place, key(data.items[place])]));
      chosen.sort((a, b) => {
        const [one, two] = [keys.get(a), keys.get(b)];
        if (one === null || two === null) return (one === null) - (two === null) || a - b;
        return one - two || a - b;
      });
    }
    made = 0;
    current = -1;
    cards.replaceChildren();
    const all = data.items.length;
    byId("status").textContent =
      chosen.length === 0 ? "Nothing matches. Loosen the search or the filters."
        : `${chosen.length.toLocaleString("en")} of ${all.toLocaleString("en")} samples`;
    extend();
  };

  const extend = () => {
    const metric = Number(controls.metric.value);
    const end = Math.min(chosen.length, made + BATCH);
    const fresh = [];
    for (; made < end; made += 1) fresh.push(make("li", {}, cardOf(chosen[made], made, metric)));
    cards.append(...fresh);
    more.hidden = made >= chosen.length;
    if (current < 0 && cards.firstChild) cards.firstChild.firstChild.tabIndex = 0;
  };

  const nameOf = (item) => `${text(item.c)}, noise ${item.r + 1}`;
  const negativeOf = (item) =>
    item.n.map(([number, weight]) => (weight === 1 ? text(number) : `(${text(number)}:${weight})`)).join(" · ");

  const cardOf = (place, order, metric) => {
    const item = data.items[place];
    const pair = make("span", { class: `pair${covered(place) ? " blurred" : ""}` },
      frameOf(item.w, "twin"), frameOf(item.a, "treated"));
    if (covered(place)) pair.append(make("span", { class: "veil", text: "Sensitive. Press to show" }));
    if (item.h) pair.append(make("span", { class: "veil", text: "Not shown" }));
    const change = gain(item, metric);
    const kind = verdict(metric, change);
    const value = hasTwins[metric] ? `${marks[kind]} ${signed(change)}` : shown(item.a.v[metric]);
    const line = make("span", { class: "line" },
      said("span", data.methods.length > 1 ? data.methods[item.m] : nameOf(item)),
      make("span", { class: `gain ${kind}`, text: value.trim() }));
    const card = make("button", { type: "button", class: "card", tabindex: "-1" }, pair, line,
      said("span", text(item.p).slice(0, 300), "prompt"));
    if (item.n.length) card.append(said("span", negativeOf(item).slice(0, 300), "negative"));
    card.order = order;
    return card;
  };

  const cardAt = (order) => cards.children[order]?.firstChild;
  const go = (order) => {
    while (order >= made && made < chosen.length) extend();
    const card = cardAt(Math.max(0, Math.min(order, chosen.length - 1)));
    if (!card) return;
    cardAt(Math.max(current, 0))?.setAttribute("tabindex", "-1");
    current = card.order;
    card.tabIndex = 0;
    card.focus();
    card.scrollIntoView({ block: "nearest" });
  };
  const columns = () => {
    const first = cards.firstChild?.offsetTop;
    let count = 0;
    while (count < cards.children.length && cards.children[count].offsetTop === first) count += 1;
    return Math.max(count, 1);
  };

  const uncover = (place, order) => {
    uncovered.add(place);
    const old = cardAt(order);
    if (!old) return;
    const held = document.activeElement === old;
    const fresh = cardOf(place, order, Number(controls.metric.value));
    old.replaceWith(fresh);
    if (held) go(order);
  };
  cards.addEventListener("click", (event) => {
    const card = event.target.closest(".card");
    if (!card) return;
    const place = chosen[card.order];
    if (covered(place)) uncover(place, card.order);
    else open(card.order);
  });
  cards.addEventListener("focusin", (event) => {
    if (event.target.order === undefined) return;
    if (current >= 0 && current !== event.target.order) cardAt(current)?.setAttribute("tabindex", "-1");
    current = event.target.order;
  });

  // One picture beside its twin ------------------------------------------------------------------

  const viewer = byId("viewer");
  const stage = byId("stage");
  const slide = byId("slide");
  let mode = "slider";
  let at = -1;

  const siblings = new Map();
  data.items.forEach((item, place) => {
    const key = `${item.c} ${item.r} ${item.s}`;
    siblings.set(key, [...(siblings.get(key) ?? []), place]);
  });

  const setMode = (name) => {
    mode = name;
    stage.className = `stage ${mode}${data.tiny ? " tiny" : ""}`;
    slide.hidden = mode !== "slider";
    document.querySelectorAll(".modes button").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode)));
    if (at >= 0) stage.classList.toggle("blurred", covered(chosen[at]));
  };
  const cut = (share) => {
    slide.value = String(share);
    stage.style.setProperty("--cut", `${share}%`);
  };

  const open = (order) => {
    const place = chosen[order];
    if (place === undefined) return;
    at = order;
    show(place);
    if (!viewer.open) viewer.showModal();
    viewer.scrollTop = 0;
  };

  const show = (place) => {
    const item = data.items[place];
    byId("where").textContent = `${(at + 1).toLocaleString("en")} of ${chosen.length.toLocaleString("en")} · ${data.methods[item.m]} · ${nameOf(item)}`;
    setFrame(byId("under"), item.w, "twin, without a negative prompt");
    setFrame(byId("over"), item.a, "treated, with the negative prompt");
    byId("veil").hidden = !covered(place);
    setMode(mode);
    const told = byId("told");
    const rows = [
      ["prompt", text(item.p)],
      ["prompt as drawn", item.q === undefined ? "" : text(item.q)],
      ["negative prompt", negativeOf(item) || "none"],
      ["concept to remove", text(item.k)],
      ["rule", text(item.g)],
      ["seed", String(item.s)],
      ["tags", item.t.map(text).join(", ")],
    ];
    told.replaceChildren();
    for (const [name, value] of rows) {
      if (value) told.append(make("dt", { text: name }), said("dd", value));
    }
    byId("scores").replaceChildren(...data.metrics.map((metric, number) => scoreRow(item, metric, number)));
    byId("strips").replaceChildren(...armStrip(item, place), ...siblingStrip(item, place));
  };

  const cell = (image, number) => {
    const node = make("td", { text: shown(image.v[number]) });
    const reason = image.u?.[number];
    if (reason !== undefined) node.title = text(reason);
    return node;
  };
  const scoreRow = (item, metric, number) => {
    const change = gain(item, number);
    const kind = verdict(number, change);
    return make("tr", {},
      make("th", { scope: "row", class: "text", text: metric.name + (metric.unit ? ` (${metric.unit})` : "") }),
      cell(item.w, number), cell(item.a, number),
      make("td", { class: `gain ${kind}`, text: change === null ? "" : `${marks[kind]} ${signed(change)}`.trim() }));
  };
  const strip = (title, nodes) => (nodes.length
    ? [make("p", { class: "strip-title", text: title }), make("div", { class: "strip" }, ...nodes)] : []);
  const armStrip = (item, place) => strip("Other arms of this case and noise", Object.entries(item.x ?? {}).map(([arm, image]) => {
    const words = (data.arms[arm] ?? arm) + (arm === "placebo" && item.o !== undefined ? ` (${text(item.o)})` : "");
    const frame = frameOf(image, words, { now: true });
    frame.classList.toggle("blurred", covered(place));
    const score = reverse >= 0 && data.metrics[reverse].name === "presence" ? ` · presence ${shown(image.v[reverse])}` : "";
    return make("figure", {}, frame, said("figcaption", words + score));
  }));
  const siblingStrip = (item, place) => {
    const others = siblings.get(`${item.c} ${item.r} ${item.s}`).filter((other) => other !== place);
    return strip("The same case and noise by other methods", others.map((other) => {
      const frame = frameOf(data.items[other].a, data.methods[data.items[other].m], { now: true });
      frame.classList.toggle("blurred", covered(other));
      const button = make("button", { type: "button" }, frame, said("span", data.methods[data.items[other].m]));
      button.addEventListener("click", () => {
        const order = chosen.indexOf(other);
        if (order >= 0) at = order;
        show(other);
        viewer.scrollTop = 0;
      });
      return button;
    }));
  };

  const step = (by) => {
    const order = Math.max(0, Math.min(at + by, chosen.length - 1));
    while (order >= made && made < chosen.length) extend();
    open(order);
  };
  byId("previous").addEventListener("click", () => step(-1));
  byId("next").addEventListener("click", () => step(1));
  byId("close").addEventListener("click", () => viewer.close());
  byId("veil").addEventListener("click", () => uncoverOpen());
  const uncoverOpen = () => {
    const place = chosen[at];
    if (place === undefined) return;
    uncover(place, at);
    show(place);
  };
  viewer.addEventListener("close", () => {
    const order = at;
    at = -1;
    go(order);
  });
  viewer.addEventListener("click", (event) => {
    if (event.target === viewer) viewer.close();
  });
  document.querySelectorAll(".modes button").forEach((button) =>
    button.addEventListener("click", () => setMode(button.dataset.mode)));
  slide.addEventListener("input", () => cut(Number(slide.value)));
  const drag = (event) => {
    if (mode !== "slider" || (event.buttons === 0 && event.type === "pointermove")) return;
    const box = stage.getBoundingClientRect();
    cut(Math.round(Math.max(0, Math.min(100, (100 * (event.clientX - box.left)) / box.width))));
  };
  stage.addEventListener("pointerdown", drag);
  stage.addEventListener("pointermove", drag);

  // Keys -----------------------------------------------------------------------------------------

  const modes = ["slider", "beside", "difference"];
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const field = event.target.closest?.("input, select, textarea");
    if (field && event.key === "Escape") field.blur();
    const sliding = event.target === slide;
    if (field && !(sliding && !event.key.startsWith("Arrow"))) return;
    const inCards = event.target.closest?.(".cards");
    const arrows = viewer.open ? !sliding : Boolean(inCards);
    const moves = {
      j: 1, k: -1,
      ...(arrows ? { ArrowRight: 1, ArrowLeft: -1 } : {}),
      ...(arrows && !viewer.open ? { ArrowDown: columns(), ArrowUp: -columns() } : {}),
    };
    if (event.key in moves) {
      event.preventDefault();
      if (viewer.open) step(moves[event.key]);
      else go(current < 0 ? 0 : current + moves[event.key]);
    } else if (event.key === "m" && viewer.open) {
      setMode(modes[(modes.indexOf(mode) + 1) % modes.length]);
    } else if (event.key === "b") {
      if (viewer.open) uncoverOpen();
      else if (current >= 0 && covered(chosen[current])) uncover(chosen[current], current);
    } else if (event.key === "/" && !viewer.open) {
      event.preventDefault();
      controls.find.focus();
    }
  });

  let pause = 0;
  controls.find.addEventListener("input", () => {
    clearTimeout(pause);
    pause = setTimeout(choose, 120);
  });
  for (const id of ["metric", "sort", "method", "tag", "outcome", "reveal"]) controls[id].addEventListener("change", choose);
  more.addEventListener("click", extend);
  new IntersectionObserver((entries) => {
    if (entries.some((entry) => entry.isIntersecting) && !more.hidden) extend();
  }, { rootMargin: "600px" }).observe(more);
  setMode("slider");
  cut(50);
  choose();
})();
