// Where to: the address says what is shown, the keyboard reaches all of it, news redraws it.

const PAGES = [["overview", "Overview"], ["topics", "Topics"], ["groups", "Groups"], ["failovers", "Failovers"], ["lost", "Lost"], ["brokers", "Brokers"]];
const VIEWS = {
  overview: { show: overview }, topics: { show: topicsView }, groups: { show: groupsView, refresh: refreshGroups },
  topic: { show: topicView, refresh: refreshTopic, page: "topics" },
  records: { show: recordsView, open: openRecords, page: "topics" },
  group: { show: groupView, refresh: refreshGroup, page: "groups" },
  failovers: { show: failoversView }, brokers: { show: brokersView }, broker: { show: brokerView, page: "brokers" },
  lost: { show: (...path) => path.length ? tailView(...path) : lostView(), open: ([name, brokerId]) => name && openTail(name, brokerId) },
};
const REFRESH_MS = 2000;
const main = document.getElementById("main");
let place = { view: "overview", path: [], query: new URLSearchParams() };
let refreshing = false;

function readPlace() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const [view, ...rest] = path.split("/").map(decoded);
  return { view: Object.hasOwn(VIEWS, view) ? view : "overview", path: rest.filter((part) => part !== ""), query: new URLSearchParams(query || "") };
}

function decoded(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

function go() {
  const before = place;
  place = readPlace();
  if (place.view !== "records") stopLive();
  if (state.about) {
    VIEWS[place.view].open?.(place.path, place.query);
    refresh();
  }
  draw();
  const isOther = before.view !== place.view || before.path.join() !== place.path.join();
  if (isOther) {
    main.focus();
    scrollTo(0, 0);
  }
}

function draw() {
  drawHead();
  if (!state.about) return;
  const fresh = el("main");
  fresh.append(...[VIEWS[place.view].show(...place.path)].flat(Infinity).filter(Boolean));
  for (const { name, value } of main.attributes) fresh.setAttribute(name, value);
  morph(main, fresh);
  drawGrids(main);
}

function drawHead() {
  const { level, text } = verdict();
  const banner = document.getElementById("verdict");
  const fresh = el("p", { id: "verdict", class: "verdict", role: "status", "data-level": level }, el("b", {}, LEVELS[level]), ` ${text}`);
  morph(banner, fresh);
  document.title = `${LEVELS[level].slice(0, 1)} minilog ${state.about ? cut(state.about.cluster_id, 8) : ""}`;
  drawPulse();
  const current = VIEWS[place.view].page || place.view;
  morph(document.getElementById("nav"), el("nav", { id: "nav", "aria-label": "Pages" }, PAGES.map(([view, name]) =>
    el("a", { href: hashOf(view), "aria-current": view === current ? "page" : null }, name))));
}

function drawPulse() {
  if (!state.about) return;
  setText("where", `cluster ${cut(state.about.cluster_id, 8)} · told by ${teller()} · ${state.about.version}`);
  setText("pulse", isSilent() ? `no news for ${span(silentMs())}` : `live · ${clockTime(state.about.at_ms).slice(11, 19)}`);
}

function setText(id, text) {
  const element = document.getElementById(id);
  if (element.textContent !== text) element.textContent = text;
}

async function refresh() {
  const view = VIEWS[place.view];
  if (!view.refresh || refreshing || document.hidden) return;
  refreshing = true;
  try {
    await view.refresh(...place.path);
  } finally {
    refreshing = false;
  }
  draw();
}

function onFirstNews(news) {
  const isFirst = news.about && !main.dataset.ready;
  if (isFirst) {
    main.dataset.ready = "true";
    go();
    return;
  }
  const began = performance.now();
  draw();
  performance.clearMeasures("console update");
  performance.measure("console update", { start: began });
}

const ACTIONS = {
  "show-records": (form) => {
    const query = new URLSearchParams([...new FormData(form)].filter(([name, value]) => value && name !== "partition"));
    const next = `${hashOf("records", place.path[0], form.elements.partition.value)}?${query}`;
    if (location.hash === next) showRecords();
    else location.hash = next;
  },
  "preview-seek": (form) => previewSeek(form.elements.to.value.trim()),
  older: () => turnPage(-1), newer: () => turnPage(1), live: toggleLive, "copy-curl": copyCurl,
};

document.addEventListener("submit", (event) => {
  event.preventDefault();
  ACTIONS[event.target.dataset.action]?.(event.target);
});
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-action]");
  if (button) ACTIONS[button.dataset.action](button);
});
document.addEventListener("keydown", (event) => {
  const isTyping = event.target.matches("input, select, textarea");
  if (event.key === "Escape" && isTyping) event.target.blur();
  if (isTyping || event.ctrlKey || event.metaKey || event.altKey) return;
  if (PAGES[Number(event.key) - 1]) location.hash = hashOf(PAGES[Number(event.key) - 1][0]);
  else if (event.key === "/") focusFirstField(event);
  else if (place.view === "records" && event.key === "[") turnPage(-1);
  else if (place.view === "records" && event.key === "]") turnPage(1);
  else if (place.view === "records" && event.key === "l") toggleLive();
});

function focusFirstField(event) {
  const field = main.querySelector("input, select");
  if (!field) return;
  event.preventDefault();
  field.focus();
}

addEventListener("hashchange", go);
addEventListener("resize", () => {
  measureGrids(main);
  drawGrids(main);
});
measureGrids(main);
setInterval(refresh, REFRESH_MS);
setInterval(() => isSilent() && draw(), 1000);
place = readPlace();
drawHead();
watch(onFirstNews);
