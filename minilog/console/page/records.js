// The record browser: a page of one partition from an offset, a time or its end on, and what comes.

const PAGE = 50;
const SCAN_PAGE = 1000;
const SCAN_MAX = 20000;
const KEPT_MAX = 500;
const LIVE_WAIT_MS = 5000;

const browser = {
  topic: null, partition: 0, from: "newest", at: "", format: "text", key: "", records: [], about: null,
  note: "", error: "", live: false, curl: "", copied: false, run: 0,
};

function openRecords([topic, partition], query) {
  stopLive();
  Object.assign(browser, {
    topic, partition: Number(partition || 0), from: query.get("from") || "newest", at: query.get("at") || "",
    format: query.get("format") || "text", key: query.get("key") || "", records: [], about: null, note: "", error: "",
  });
  showRecords();
}

function recordsPath(parameters) {
  const path = `/v1/topics/${encodeURIComponent(browser.topic)}/partitions/${browser.partition}/records`;
  return `${path}?${new URLSearchParams({ ...parameters, format: browser.format, errors_tolerance: "none" })}`;
}

async function offsetAt(at) {
  const path = `/v1/topics/${encodeURIComponent(browser.topic)}/partitions/${browser.partition}/offsets`;
  return (await ask(`${path}?${new URLSearchParams({ at, elsewhere: "ask" })}`)).offset;
}

async function startOffset() {
  if (browser.from === "offset") return Math.max(0, Math.trunc(Number(browser.at) || 0));
  if (browser.from === "time") return offsetAt(String(Math.max(0, Date.parse(browser.at) || 0)));
  const first = await offsetAt("earliest");
  if (browser.from === "oldest") return first;
  return Math.max(first, (await offsetAt("latest")) - PAGE);
}

async function showRecords(from = null) {
  const run = ++browser.run;
  try {
    browser.error = "";
    const offset = from === null ? await startOffset() : from;
    const found = browser.key ? await scan(offset, run) : await readPage(offset, PAGE);
    if (run !== browser.run) return;
    Object.assign(browser, found, { curl: curlOf(offset), copied: false });
  } catch (error) {
    if (run === browser.run) Object.assign(browser, { error: error.message, records: [] });
  }
  draw();
}

async function readPage(offset, most, waitMs = 0, epoch = null) {
  const parameters = { offset, max_records: most, elsewhere: "ask", ...(waitMs ? { wait_ms: waitMs } : {}), ...(epoch === null ? {} : { leader_epoch: epoch }) };
  const about = await ask(recordsPath(parameters));
  return { records: about.records, about, note: "", first: offset };
}

// Records whose key contains the text, of as many as are looked at in one go.
async function scan(offset, run) {
  const records = [];
  let [next, seen, about] = [offset, 0, null];
  while (records.length < PAGE && seen < SCAN_MAX && run === browser.run) {
    about = await ask(recordsPath({ offset: next, max_records: SCAN_PAGE, elsewhere: "ask" }));
    seen += about.records.length;
    records.push(...about.records.filter(hasKey));
    if (about.next_offset === next || about.next_offset >= about.high_watermark) break;
    next = about.next_offset;
  }
  const end = about ? about.next_offset : next;
  const note = `${many(records.length, "record")} of the ${count(seen)} from offset ${count(offset)} to ${count(end - 1)} have the key.`;
  return { records: records.slice(0, KEPT_MAX), about, note, first: offset };
}

function hasKey(record) {
  return "timestamp" in record && keyText(record).includes(browser.key);
}

function keyText(record) {
  return record.key_base64 ?? record.key ?? "";
}

function curlOf(offset) {
  const path = recordsPath({ offset, max_records: PAGE });
  return `curl -sL ${shellQuoted(`${location.origin}${path}`)}`;
}

function turnPage(step) {
  if (!browser.about || browser.live) return;
  const { first, about } = browser;
  const next = step > 0 ? Math.min(about.next_offset, about.high_watermark ?? about.next_offset) : Math.max(about.log_start_offset, first - PAGE);
  showRecords(next);
}

function toggleLive() {
  if (!browser.topic) return;
  if (browser.live) stopLive();
  else startLive();
  draw();
}

function stopLive() {
  browser.live = false;
  browser.run += 1;
}

async function startLive() {
  browser.live = true;
  const run = ++browser.run;
  try {
    let offset = browser.about ? browser.about.next_offset : await offsetAt("latest");
    let epoch = browser.about?.leader_epoch ?? null;
    while (browser.live && run === browser.run) {
      const page = await readPage(offset, KEPT_MAX, LIVE_WAIT_MS, epoch);
      if (run !== browser.run) return;
      offset = page.about.next_offset;
      epoch = page.about.leader_epoch ?? epoch;
      addLive(page);
    }
  } catch (error) {
    if (run !== browser.run) return;
    browser.error = error.message;
    const isTemporary = error.problem ? error.problem.retriable : true;
    if (!isTemporary) stopLive();
    else setTimeout(() => run === browser.run && browser.live && startLive(), RETRY_MS);
    draw();
  }
}

function addLive(page) {
  const fresh = browser.key ? page.records.filter(hasKey) : page.records;
  Object.assign(browser, { about: page.about, error: "", records: [...browser.records, ...fresh].slice(-KEPT_MAX) });
  if (fresh.length) draw();
}

function recordsView(name, partition) {
  if (state.about.role === "controller") return [el("h1", {}, `Records of ${name}`), atBrokers("Records", "records", name, partition || 0)];
  const topic = topicNamed(name);
  if (!topic) return [el("h1", {}, `Records of ${name}`), none("There is no topic of this name.")];
  return [
    el("h1", {}, "Records of ", link(name, "topic", name), `, partition ${browser.partition}`),
    recordsForm(topic), recordsButtons(), placeNote(),
    browser.error ? el("p", { class: "bad" }, `✕ ${sentence(browser.error)}`) : null,
    recordsTable(),
    browser.curl ? el("div", {}, el("h2", {}, "The same with curl"), el("pre", { id: "curl", tabindex: "0" }, browser.curl)) : null,
  ];
}

function recordsForm(topic) {
  const option = (value, text, chosen) => el("option", { value, selected: value === chosen }, text);
  const partitions = topic.partitions.map(([number]) => option(String(number), String(number), String(browser.partition)));
  const starts = [["newest", "newest records"], ["oldest", "oldest record"], ["offset", "an offset"], ["time", "a time"]];
  return el("form", { "data-action": "show-records", "data-key": `${topic.topic}-${browser.partition}` },
    el("label", {}, "Partition", el("select", { name: "partition" }, partitions)),
    el("label", {}, "Begin at", el("select", { name: "from" }, starts.map(([value, text]) => option(value, text, browser.from)))),
    el("label", {}, "Offset, or time as 2026-12-01T03:40", el("input", { name: "at", value: browser.at, autocomplete: "off" })),
    el("label", {}, "Key contains", el("input", { name: "key", value: browser.key, autocomplete: "off", spellcheck: "false" })),
    el("label", {}, "Shown as", el("select", { name: "format" }, ["text", "base64"].map((value) => option(value, value, browser.format)))),
    el("button", {}, "Show"));
}

function recordsButtons() {
  const idle = browser.live || !browser.about;
  return el("p", {},
    el("button", { type: "button", "data-action": "older", disabled: idle }, "Older"), " ",
    el("button", { type: "button", "data-action": "newer", disabled: idle }, "Newer"), " ",
    el("button", { type: "button", "data-action": "live", "aria-pressed": String(browser.live) }, browser.live ? "Live: on" : "Live: off"), " ",
    el("button", { type: "button", "data-action": "copy-curl", disabled: !browser.curl }, browser.copied ? "Copied" : "Copy as curl"));
}

function placeNote() {
  const { about, note } = browser;
  if (!about) return el("p", { class: "quiet" }, "Reading.");
  const text = `The partition holds offsets ${count(about.log_start_offset)} to ${count(about.high_watermark)} (end). `;
  return el("p", { class: "quiet" }, text, note);
}

function recordsTable() {
  const rows = browser.records.map((record) => "timestamp" in record ? recordRow(record) : unreadableRow(record));
  const shown = browser.live || browser.from === "newest" ? rows.reverse() : rows;
  return table("Records", ["Offset#", "Time", "Key", "Value", "Headers"], shown, browser.about ? "none" : "…");
}

function recordRow(record) {
  const headers = record.headers.map((header) => `${header.name}: ${header.value ?? "null"}`).join("\n");
  return [
    count(record.offset), when(record.timestamp, now()), el("td", { class: "mono" }, contentOf(record, "key")),
    el("td", { class: "mono value" }, contentOf(record, "value")), el("td", { class: "mono value" }, headers || DASH),
  ];
}

function unreadableRow(record) {
  const detail = record.error?.detail || "they cannot be read";
  return [`${count(record.offset)} to ${count(record.end_offset - 1)}`, DASH, DASH, el("td", { class: "text bad" }, `✕ Unreadable: ${sentence(detail)}`), DASH];
}

function contentOf(record, name) {
  if (record[`${name}_base64`] !== undefined) return longText(`base64 ${record[`${name}_base64`]}`);
  const content = record[name];
  if (content === null || content === undefined) return el("span", { class: "quiet" }, name === "value" ? "null (tombstone)" : "none");
  return longText(content);
}

function longText(text) {
  if (text.length <= 300) return text;
  return el("details", {}, el("summary", {}, cut(text, 200)), text);
}

async function copyCurl() {
  try {
    await navigator.clipboard.writeText(browser.curl);
    browser.copied = true;
  } catch {
    getSelection().selectAllChildren(document.getElementById("curl")); // no clipboard without https: it is selected instead
  }
  draw();
}
